"""
What of the past is asked for, and the reading of it: shared by ``replay`` and ``audit``.

    History.spans per partition (archive, then log)  -> checksum, envelope -> canonical? -> chosen? -> merged
                                                     by position
    only subjects asked: the trail's positions of them -> History.entries -> the same, and a scan of what the
        trail has not read

Always true: every canonical entry that fits the selection comes once, in the order of (position, stream,
partition), up to where each log ended when the reading began. Entries that are damaged, quarantined or
another one's duplicate are left out and counted.
Memory: one span a partition, and eight bytes for every entry that no index row names (a raw XADD that nobody
has folded yet).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from heapq import merge
from typing import TYPE_CHECKING, Any, Literal, cast

import click
import msgspec

from aurastream.projections.built_in import known_of_subject, story_of
from aurastream.projections.engine import AdoptingIndex, Batch
from aurastream.streams import (
    AHEAD_MAX,
    READ_MAX,
    Codec,
    Envelope,
    History,
    RawEntry,
    Span,
    Stream,
    as_pair,
    retried,
)
from aurastream.streams.archive import Where

if TYPE_CHECKING:  # pyarrow takes its time
    from aurastream.streams.archive import StreamArchive

SPANS_MAX = 16_384  # entries held of all partitions together
LEAST_SPAN = 64
LAST_SEQUENCE = 2**64 - 1
FOUND_MAX = 500  # entries a look by positions

_ANY_TYPE = Codec(())

By = Literal["occurred", "appended"]
Place = tuple[str, int]  # stream, partition
Order = tuple[int, int, str, int]  # milliseconds, sequence, stream, partition


class Found(msgspec.Struct, frozen=True):
    """A canonical entry. raw: the event's JSON as stored, personal fields sealed."""

    stream: str
    partition: int
    position: str
    envelope: Envelope
    raw: bytes

    @property
    def order(self) -> Order:
        """Its place among the entries of all streams."""
        return (*as_pair(self.position), self.stream, self.partition)

    @property
    def place(self) -> str:
        """stream/partition/position."""
        return f"{self.stream}/{self.partition}/{self.position}"


class Selection(msgspec.Struct, frozen=True):
    """Which events. Empty sets choose all. since, until: inclusive, of event time or (by "appended") of the
    position's clock.

    correlations: stories as the trail names them (trail.story_of), with their first causes, whose event IDs
    they are.
    """

    since: datetime | None = None
    until: datetime | None = None
    by: By = "occurred"
    types: frozenset[str] = frozenset()
    subjects: frozenset[str] = frozenset()
    correlations: frozenset[str] = frozenset()
    sources: frozenset[str] = frozenset()
    events: frozenset[str] = frozenset()

    def fits(self, event: Envelope) -> bool:
        """Whether the event is chosen, as far as it says so itself (not by its position)."""
        return (
            (not self.types or event.type in self.types)
            and (not self.subjects or event.subject in self.subjects)
            and (
                not self.correlations
                or story_of(event) in self.correlations
                or event.event_id in self.correlations
            )
            and (not self.sources or is_from(event.source, self.sources))
            and (not self.events or event.event_id in self.events)
            and (self.by != "occurred" or self.since is None or event.occurred_at >= self.since)
            and (self.by != "occurred" or self.until is None or event.occurred_at <= self.until)
        )

    def after(self) -> str:
        """A position no chosen entry is at or before."""
        if self.since is None:
            return "0-0"
        # Nothing is appended more than AHEAD_MAX before it occurs: intake would quarantine it.
        earliest = self.since if self.by == "appended" else _shifted(self.since, -AHEAD_MAX)
        return (
            f"{max(milliseconds(earliest, is_up=True) - 1, 0)}-{LAST_SEQUENCE}"
            if milliseconds(earliest) > 0
            else "0-0"
        )

    def last(self) -> str:
        """A position no chosen entry is after; "+" where time sets no bound."""
        if self.until is None or self.by != "appended":
            return "+"
        return f"{max(milliseconds(self.until), 0)}-{LAST_SEQUENCE}"

    def is_within(self, position: str) -> bool:
        """Whether an entry there can be chosen, by its position alone."""
        last = self.last()
        return as_pair(position) > as_pair(self.after()) and (
            last == "+" or as_pair(position) <= as_pair(last)
        )

    def archived(self) -> Where | None:
        """What the archive can be asked for by its columns; None where it must be read through."""
        times = (self.since, self.until) if self.by == "occurred" else (None, None)
        where = Where(
            type=_only(self.types),
            subject=_only(self.subjects),
            since=times[0],
            until=times[1] and _shifted(times[1], timedelta(microseconds=1)),
        )
        return where if where != Where() else None

    def told(self) -> str:
        """In words, the same for the same selection."""
        parts = [
            *(
                f"{name}={moment.isoformat()}"
                for name, moment in (("from", self.since), ("to", self.until))
                if moment is not None
            ),
            *([f"by={self.by}"] if self.since or self.until else []),
            *(
                f"{name}={','.join(sorted(chosen))}"
                for name, chosen in (
                    ("type", self.types),
                    ("subject", self.subjects),
                    ("correlation", self.correlations),
                    ("source", self.sources),
                )
                if chosen
            ),
        ]
        return " ".join(parts) or "everything"


class Tally(msgspec.Struct):
    """What a reading came upon. damaged: left out, as no view counts them either; duplicates: of entries read
    before.
    """

    scanned: int = 0
    damaged: int = 0
    duplicates: int = 0


def is_from(source: str, asked: Iterable[str]) -> bool:
    """Whether an event's source is one of these: worker@host:1 is of worker@host:1, and of worker."""
    return any(source == name or source.startswith((f"{name}@", f"{name}:", f"{name}/")) for name in asked)


def read_past(
    histories: list[History],
    selection: Selection,
    *,
    after: dict[Place, str] | None = None,
    tally: Tally | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> Iterator[Found]:
    """The chosen entries, in order. after: where to go on in a partition. stopping: asked between spans; True
    ends the reading.
    """
    counted = tally or Tally()
    places = [
        (history, partition) for history in histories for partition in _partitions(history.stream, selection)
    ]
    count = max(LEAST_SPAN, min(READ_MAX, SPANS_MAX // max(1, len(places))))
    readings = []
    for history, partition in places:
        stream = history.stream
        end = _earlier(end_of(history, partition), selection.last())
        begin = max(selection.after(), (after or {}).get((stream.name, partition), "0-0"), key=as_pair)
        if end and as_pair(begin) < as_pair(end):
            readings.append(
                Reading(history, partition, selection, counted, stopping, count).between(begin, end)
            )
    return readings[0] if len(readings) == 1 else merge(*readings, key=lambda found: found.order)


def scan(history: History, partition: int, after: str, selection: Selection, tally: Tally) -> Iterator[Found]:
    """The chosen entries of a partition after a position, to the log's end, whatever index there is."""
    begin = max(after or "0-0", selection.after(), key=as_pair)
    end = _earlier(end_of(history, partition), selection.last())
    if not end or as_pair(end) <= as_pair(begin):
        return iter(())
    return Reading(history, partition, selection, tally, lambda: False, READ_MAX).scanned(begin, end)


class Reading:
    """The reading of one partition."""

    def __init__(
        self,
        history: History,
        partition: int,
        selection: Selection,
        tally: Tally,
        stopping: Callable[[], bool],
        count: int,
    ) -> None:
        self._history, self._partition, self._selection = history, partition, selection
        self._tally, self._stopping, self._count = tally, stopping, count
        self._stream = history.stream
        self._index = AdoptingIndex(self._stream, partition)

    def between(self, after: str, until: str) -> Iterator[Found]:
        """Chosen entries after a position, up to and including `until`: by the trail where it helps, else by
        a scan.
        """
        if self._selection.subjects:
            listed, after = self._listed(after, until)
            for start in range(0, len(listed), FOUND_MAX):
                if self._stopping():
                    return
                part = listed[start : start + FOUND_MAX]
                held = self._history.entries(self._partition, part)
                # The trail folded them, so they are canonical; one that is gone or damaged by now is no event
                # any more.
                raw = [held[position] for position in part if position in held]
                self._tally.damaged += len(part) - len(raw)
                yield from self._chosen(self._batch(raw, frozenset()), raw)
        if as_pair(after) < as_pair(until):
            yield from self.scanned(after, until)

    def scanned(self, after: str, until: str) -> Iterator[Found]:
        """The same, entry by entry."""
        for span in self._spans(after, until):
            if self._stopping():
                return
            yield from self._chosen(self._canonical(span), span.raw)

    def _spans(self, after: str, until: str) -> Iterator[Span]:
        """All entries, but of the archive only those row groups that can hold chosen ones."""
        archive = cast("StreamArchive | None", self._history.archive)
        where = self._selection.archived()
        if (
            archive is not None
            and where
            and as_pair(archived := archive.until(self._partition)) > as_pair(after)
        ):
            last = min(archived, until, key=as_pair)
            yield from archive.scan(self._partition, where, after, last, self._count)
            after = archived
        if as_pair(after) < as_pair(until):
            yield from self._history.spans(self._partition, after, until, self._count)

    def _listed(self, after: str, until: str) -> tuple[list[str], str]:
        """The positions the trail knows of the asked subjects, and from where on it knows nothing."""
        here = [
            subject
            for subject in self._selection.subjects
            if self._stream.partition_of(subject) == self._partition
        ]
        known = [known_of_subject(self._stream, subject) for subject in here]
        # Of several, the one read first bounds what all know; what comes after it is scanned.
        read_to = min((item.until or "0-0" for item in known), key=as_pair, default="0-0")
        bounds = as_pair(after), min(as_pair(until), as_pair(read_to))
        positions = [
            place for item in known for place in item.positions if bounds[0] < as_pair(place) <= bounds[1]
        ]
        return sorted(positions, key=as_pair), max(after, read_to, key=as_pair)

    def _batch(self, raw: list[RawEntry], duplicates: frozenset[bytes] | None) -> Batch:
        batch = Batch(raw, _ANY_TYPE, self._stream.keys[self._partition].where, True, duplicates)
        self._tally.scanned += len(raw)
        self._tally.damaged += len(batch.dead)
        return batch

    def _canonical(self, span: Span) -> Batch:
        """The span's entries with the duplicates left out of its events."""
        batch = self._batch(span.raw, span.duplicates)
        before = len(span.raw) - len(batch.dead)
        batch.judge(self._index)
        self._tally.duplicates += before - len(batch.events)
        return batch

    def _chosen(self, batch: Batch, raw: list[RawEntry]) -> Iterator[Found]:
        fits, by_position = self._selection.fits, None
        for position, envelope in batch.events:
            if fits(envelope):
                by_position = by_position or {place.decode(): fields for place, fields in raw}
                yield Found(
                    self._stream.name, self._partition, position, envelope, json_of(by_position[position])
                )


def json_of(fields: list[bytes]) -> bytes:
    """The event's JSON of an entry that was checked."""
    return fields[1] if fields[0] == b"event" else dict(zip(fields[::2], fields[1::2], strict=True))[b"event"]


def end_of(history: History, partition: int) -> str:
    """The position of the last entry there is, archived or not; "" where there is none."""
    stream, keys = history.stream, history.stream.keys[partition]
    last = asked(stream, partition, ("XREVRANGE", keys.log, "+", "-", "COUNT", 1))
    if last:
        return str(last[0][0].decode())
    # Trimmed to nothing, it is in the archive; without one, to read up to there says so.
    trimmed_to = asked(stream, partition, ("HGET", keys.meta, "trimmed_to"))
    archived = history.archive.until(partition) if history.archive is not None else ""
    return max(archived, (trimmed_to or b"").decode(), key=as_pair)


def parsed_time(text: str, name: str = "time") -> datetime:
    """ISO 8601; a date is its midnight, and no offset means UTC. Raises BadParameter."""
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(
            f"{text!r} is no ISO 8601 time, as 2026-04-15 or 2026-04-15T12:30:00Z", param_hint=name
        ) from error


def milliseconds(moment: datetime, *, is_up: bool = False) -> int:
    """Since 1970, exact; rounded down, or up."""
    exact = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    return -(-exact // 1000) if is_up else exact // 1000


def asked(stream: Stream, partition: int, command: tuple[Any, ...]) -> Any:
    """A read, repeated where the connection is lost."""
    what = f"read of {stream.name}/{partition}"
    return retried(
        what, stream.settings.attempts_max, lambda: stream.wire(partition).ask(command)[0], stream.reconnect
    )


def _only(names: frozenset[str]) -> str | None:
    """The one there is, where it is one."""
    return next(iter(names)) if len(names) == 1 else None


def _shifted(moment: datetime, by: timedelta) -> datetime:
    try:
        return moment + by
    except OverflowError:
        return (datetime.min if by < timedelta(0) else datetime.max).replace(tzinfo=UTC)


def _partitions(stream: Stream, selection: Selection) -> list[int]:
    if selection.subjects and stream.is_log_here:
        return sorted({stream.partition_of(subject) for subject in selection.subjects})
    return list(range(stream.partitions))


def _earlier(end: str, bound: str) -> str:
    return end if bound == "+" or not end else min(end, bound, key=as_pair)
