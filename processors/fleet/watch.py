"""
What became of lanes, logged once: by the one host that is the leader.

    a look -> each lane's condition -> another than was said of it last? -> a line, and what was said is kept
    lane_unowned     nobody runs it: an error while events wait for it, else a warning, after IDLE_S
    lane_stuck       it cannot advance (a view's owner says so itself, with the traceback: host/supervised.py)
    event_set_aside  a group could not use an entry; count: how many are new
    lane_well_again  after any of these, how long it took

Lanes of a group and stream of which the same is to be said share a line. What was said is kept on the server
(aura:{fleet}:watch), so that another leader neither repeats nor forgets it; where that cannot be written, a
line may come twice.

Decision (2026-11): the leader logs, from the log's own facts. Refused: each host for itself, as nobody speaks
for lanes without a host, nor for what a killed one set aside last; every host, which is a line from each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

import msgspec
from redis.exceptions import RedisError

from aurastream.processors.fleet.fleet import Colour, Fleet, FleetLane, GroupKind, LaneState, ranges
from aurastream.streams import LOST, WATCH, Logger, Reply, Server

UNOWNED, STUCK, WELL = "lane_unowned", "lane_stuck", ""
SUMMED = ("lag_events", "count")
WHY_MAX = 500  # characters in a line
IDLE_S = 10.0  # for which nobody runs a lane that nothing waits for, before that is said: hosts are restarted

log = Logger("aurastream.fleet")


class Said(msgspec.Struct, frozen=True):
    """What was said of a lane last. event: of the log, "" for well; colour: that of then. aside: how many
    entries it had set aside. since_ms: server time.
    """

    event: str = WELL
    colour: Colour = Colour.GREEN
    aside: int = 0
    since_ms: int = 0


class Line(msgspec.Struct, frozen=True):
    """A line of the log. level: warning or error."""

    level: str
    event: str
    facts: dict[str, object]


def said_of(flat: Reply) -> dict[str, Said]:
    """From HGETALL's answer. What cannot be read was not said."""
    said = {}
    for name, row in zip(flat[::2], flat[1::2], strict=True):
        try:
            said[name.decode(errors="backslashreplace")] = msgspec.json.decode(row, type=Said)
        except msgspec.MsgspecError:
            continue
    return said


def changes(
    fleet: Fleet, said: Mapping[str, Said], now_ms: int, early: Set[str] = frozenset()
) -> tuple[list[Line], dict[str, Said | None]]:
    """What is to be logged, and what is to be kept: field -> what was said, None to forget. early: fields of
    lanes of which nothing is to be said yet. Pure.
    """
    lines: dict[tuple[str, ...], list[tuple[Line, int]]] = {}
    kept: dict[str, Said | None] = {}
    there = {said_field(lane.stream, lane.partition, lane.group): lane for lane in fleet.lanes}
    for field in said.keys() - there.keys():
        kept[field] = None
    for field, lane in there.items():
        before = said.get(field, Said())
        now = _condition(lane, before, now_ms, is_early=field in early)
        if now == before:
            continue
        kept[field] = None if now.event == WELL and not now.aside else now
        for line in _lines(lane, before, now, now_ms):
            same = (lane.group, lane.stream, line.event, line.level, str(line.facts.get("reason")))
            lines.setdefault(same, []).append((line, lane.partition))
    return [_together(group, stream, each) for (group, stream, *_), each in lines.items()], kept


def said_field(stream: str, partition: int, group: str) -> str:
    """Of a lane, in what is kept."""
    return f"{stream}/{partition}/{group}"


def _condition(lane: FleetLane, before: Said, now_ms: int, *, is_early: bool) -> Said:
    event, colour = WELL, Colour.GREEN
    if is_early and not before.event:
        pass
    elif lane.state is LaneState.STUCK:
        event, colour = STUCK, Colour.RED
    elif lane.state is LaneState.UNOWNED or (lane.state is LaneState.FREE and lane.colour is Colour.RED):
        event, colour = UNOWNED, lane.colour
    since_ms = before.since_ms if event == before.event else now_ms
    return Said(event, colour, lane.set_aside, since_ms if event or lane.set_aside else 0)


def _lines(lane: FleetLane, before: Said, now: Said, now_ms: int) -> Iterable[Line]:
    if now.event and (now.event, now.colour) != (before.event, before.colour):
        is_said = now.event == STUCK and lane.trouble is not None and lane.kind is not GroupKind.PROCESSOR
        if not is_said and not (now.event == before.event and now.colour is Colour.AMBER):
            yield Line("error" if now.colour is Colour.RED else "warning", now.event, _facts(lane))
    if now.aside > before.aside and lane.aside:
        newest = lane.aside[-1]
        level = "error" if lane.aside_colour is Colour.RED else "warning"
        facts = {"position": newest.position, "event_id": newest.event_id, "reason": newest.why[:WHY_MAX]}
        yield Line(level, "event_set_aside", {"count": now.aside - before.aside, **facts})
    is_well = before.event and not now.event
    if is_well or (before.aside and not now.aside and not now.event):
        for_s = round(max(0, now_ms - before.since_ms) / 1000, 1)
        was = before.event or "event_set_aside"
        yield Line("warning", "lane_well_again", {"was": was, "for_s": for_s, "host": lane.owner or ""})


def _facts(lane: FleetLane) -> dict[str, object]:
    facts: dict[str, object] = {"reason": lane.why[:WHY_MAX], "lag_events": lane.lag_events}
    if lane.lag_events:
        facts["lag_s"] = lane.lag_seconds
    if lane.owner:
        facts["host"] = lane.owner
    if lane.trouble is not None:
        facts |= {"position": lane.trouble.position, "event_id": lane.trouble.event_id}
        facts["traceback"] = lane.trouble.traceback
    return facts


def _together(group: str, stream: str, lines: list[tuple[Line, int]]) -> Line:
    """One line for several lanes: counts are added up, else the first speaks for all."""
    first = lines[0][0]
    where = {"group": group, "stream": stream, "partitions": ranges(partition for _, partition in lines)}
    counts = {
        name: sum(int(str(line.facts[name])) for line, _ in lines) for name in SUMMED if name in first.facts
    }
    return msgspec.structs.replace(first, facts={**where, **first.facts, **counts})


class FleetWatch:
    """The leader's. Not for several threads at once."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._unkept: dict[str, Said | None] = {}
        self._idle_since: dict[str, int] = {}

    def notice(self, fleet: Fleet, said: Mapping[str, Said], now_ms: int) -> list[Line]:
        """Log what is new in this look, and keep what was said. said: as it was kept. Returns the lines."""
        before = {field: each for field, each in {**said, **self._unkept}.items() if each is not None}
        lines, kept = changes(fleet, before, now_ms, self._early(fleet, now_ms))
        for line in lines:
            getattr(log, line.level)(line.event, **line.facts)
        self._unkept |= kept
        if self._unkept:
            self._keep()
        return lines

    def _early(self, fleet: Fleet, now_ms: int) -> set[str]:
        """Lanes that are unowned without being red, for less than IDLE_S as far as we have seen."""
        idle = {
            said_field(lane.stream, lane.partition, lane.group)
            for lane in fleet.lanes
            if lane.state is LaneState.UNOWNED and lane.colour is not Colour.RED
        }
        self._idle_since = {field: self._idle_since.get(field, now_ms) for field in idle}
        return {field for field, since in self._idle_since.items() if now_ms - since < IDLE_S * 1000}

    def _keep(self) -> None:
        """At the next look, where the server is away, or full."""
        gone = [field for field, said in self._unkept.items() if said is None]
        rows = {field: msgspec.json.encode(said) for field, said in self._unkept.items() if said is not None}
        try:
            if gone:
                self._server.client.hdel(WATCH, *gone)
            if rows:
                self._server.client.hset(WATCH, mapping=rows)  # type: ignore[arg-type]
        except (*LOST, RedisError) as error:
            log.info("watch_not_kept", reason=f"{type(error).__name__}: {error}"[:200])
        else:
            self._unkept = {}
