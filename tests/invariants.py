"""
The invariant checker: what must hold of log and view, decided without one line of the projections' code.

    held = held_by(client, "clips", 0)      everything under one partition's tag, at one instant (one script)
    check(held)                             I1 view == fold(log), I3 cursor and index, I5 the log itself; at
                                            quiescence
    check_view(held)                        I1 alone, for a consumer that keeps no cursor
    check_prefix(held)                      I4: the same of fold(log[.. cursor]), at any moment of a run
    check_acks(helds, acks)                 I2: what was acknowledged is in the log once, and nothing else is
    check_rebuilt(before, after)            I6: a view folded again is the same bytes

Every function is pure but for ``held_by`` and returns findings: sentences, none when all is well. The names
of keys, the CRC-32 of an entry and the digest of an event ID (XXH3-64) are known here as they are documented;
the fold of tests/projections/counting.py is
written again below, from its description: an event ID counts once, at the entry that ``ids`` names, or else
at its first.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote
from zlib import crc32

from xxhash import xxh3_64_digest

GROUP = "counting"
VIEW = f"view:{GROUP}:1:"
TAILS = re.compile(
    r"log|ids|meta|versions|entities|groups|archive|(cursor|lease|dead|snapshots):[a-z0-9_.@-]+"
    r"|(attempts|done|line|due|outbox|begun):[a-z0-9_.@-]+"
    r"|view:[a-z0-9_.-]+:\d+:.+",
    re.DOTALL,
)
GLOBALS = re.compile(r"aura:(streams|views)|aura:\{fleet\}:(hosts|cards|changes)")
NAMED_MAX = 5  # of one kind of finding; the others are counted
COUNT_MAX = 2**53 - 1
EVENT_BYTES_MAX = 256 * 1024
IDENTIFIER = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
TEXTS = ("source", "correlation_id", "causation_id", "traceparent", "category", "title", "channel")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# Everything of one tag at one instant, as [key, type, ms to live, content, more]. The keys are found by
# pattern, which a script of the product must never do; here it is the point: a key that nobody knows is a
# finding.
SNAPSHOT = """
local found = {}
local keys = redis.call('KEYS', ARGV[1])
table.sort(keys)
for _, key in ipairs(keys) do
  local kind, content, more = redis.call('TYPE', key).ok, false, false
  if kind == 'hash' then content = redis.call('HGETALL', key)
  elseif kind == 'zset' then content = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
  elseif kind == 'stream' then
    content = redis.call('XRANGE', key, '-', '+')
    more = {redis.call('XINFO', 'STREAM', key), redis.call('XINFO', 'GROUPS', key)}
  end
  found[#found + 1] = {key, kind, redis.call('PTTL', key), content, more}
end
return found
"""

Position = tuple[int, int]


@dataclass
class Held:
    """All keys of one partition, by what follows the tag."""

    stream: str
    partition: int
    log: list[tuple[str, dict[bytes, bytes]]] = field(default_factory=list)
    hashes: dict[str, dict[bytes, bytes]] = field(default_factory=dict)
    rankings: dict[str, dict[bytes, float]] = field(default_factory=dict)
    pending: dict[str, int] = field(default_factory=dict)  # group -> entries delivered and not acknowledged
    added: int | None = None  # entries ever added, where the server counts them
    kinds: dict[str, str] = field(default_factory=dict)
    with_ttl: list[str] = field(default_factory=list)

    @property
    def where(self) -> str:
        return f"{self.stream}/{self.partition}"

    @property
    def cursor(self) -> dict[str, str]:
        return {
            name.decode(): value.decode() for name, value in self.hashes.get(f"cursor:{GROUP}", {}).items()
        }

    @property
    def tables(self) -> dict[str, dict[bytes, Any]]:
        """The view's tables and the dead list, as stored."""
        every: dict[str, dict[bytes, Any]] = {**self.hashes, **self.rankings}
        tables = {tail.removeprefix(VIEW): rows for tail, rows in every.items() if tail.startswith(VIEW)}
        return tables | ({"dead": every[f"dead:{GROUP}"]} if f"dead:{GROUP}" in every else {})


def held_by(client: Any, stream: str, partition: int) -> Held:
    """One partition as the server has it now. client: redis-py's, without decoding; of a server or a
    cluster.
    """
    tag = f"aura:{{{stream}.{partition}}}:"
    held = Held(stream, partition)
    for key, kind, ttl_ms, content, more in client.eval(SNAPSHOT, 1, tag + "log", tag + "*"):
        tail = key.decode()[len(tag) :]
        held.kinds[tail] = kind.decode()
        if ttl_ms != -1:
            held.with_ttl.append(tail)
        if kind == b"hash":
            held.hashes[tail] = _pairs(content)
        elif kind == b"zset":
            held.rankings[tail] = {name: float(score) for name, score in _pairs(content).items()}
        elif kind == b"stream" and tail == "log":
            held.log = [(position.decode(), _pairs(fields)) for position, fields in content]
            facts = _pairs(more[0])
            held.added = facts.get(b"entries-added")
            for group in map(_pairs, more[1]):
                held.pending[group[b"name"].decode()] = group[b"pending"]
    return held


def _pairs(flat: list[Any]) -> dict[Any, Any]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def every_partition(client: Any) -> list[Held]:
    """All partitions of all streams that are registered."""
    streams = {name.decode(): json.loads(facts) for name, facts in client.hgetall("aura:streams").items()}
    return [
        held_by(client, name, partition)
        for name, facts in sorted(streams.items())
        for partition in range(facts["partitions"])
    ]


# The log as the checker reads it.


@dataclass(frozen=True)
class Reading:
    """An entry: what it is, before it is known whether another one has the same event ID."""

    position: str
    event: dict[str, Any] | None = None  # None: damaged
    kind: str = "counted"  # counted, skipped, quarantined or dead
    occurred: datetime = EPOCH


def place_of(position: str) -> Position:
    milliseconds, _, sequence = position.partition("-")
    return int(milliseconds or 0), int(sequence or 0)


def read_entry(position: str, fields: Mapping[bytes, bytes]) -> Reading:
    """Checksum, envelope, type, bounds, clock, in this order."""
    raw = fields.get(b"event")
    if raw is None or fields.get(b"crc32") != b"%d" % crc32(raw) or len(raw) > EVENT_BYTES_MAX:
        return Reading(position, kind="dead")
    try:
        event = json.loads(raw.decode())
        occurred = _instant(event["occurred_at"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return Reading(position, kind="dead")
    if not isinstance(event, dict) or not all(
        isinstance(event.get(name), str) for name in ("event_id", "type", "subject")
    ):
        return Reading(position, kind="dead")
    if not IDENTIFIER.fullmatch(event["event_id"]):
        return Reading(position, kind="dead")
    if event["type"] != "clip.views_observed":
        return Reading(position, event, "skipped", occurred)
    if not _is_observation(event):
        return Reading(position, kind="dead")
    ahead = occurred - EPOCH - timedelta(hours=24)
    late = ahead > timedelta(milliseconds=min(place_of(position)[0], 2**47))
    return Reading(position, event, "quarantined" if late else "counted", occurred)


def _instant(text: str) -> datetime:
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        raise ValueError("no offset")
    return instant


def _is_observation(event: dict[str, Any]) -> bool:
    views = event.get("views")
    texts = [event[name] for name in TEXTS if name in event]
    return (
        type(views) is int
        and 0 <= views <= COUNT_MAX
        and type(event.get("version", 1)) is int
        and all(isinstance(text, str) and len(text) <= 1_000 for text in texts)
    )


def canonical_entries(held: Held, readings: list[Reading]) -> tuple[dict[str, str], list[str]]:
    """event ID -> position of the entry that counts; and what is wrong with ``ids``."""
    ids, findings = dict(held.hashes.get("ids", {})), []
    at = {reading.position: reading for reading in readings}
    canonical: dict[str, str] = {}
    for reading in readings:
        if reading.event is None:
            continue
        name = reading.event["event_id"]
        if name in canonical:
            continue
        named = None
        for index_field in (xxh3_64_digest(name.encode()), b"event_id=" + name.encode()):
            row = ids.get(index_field)
            found = at.get(_unpacked(row)) if row is not None else None
            if found is not None and found.event is not None and found.event["event_id"] == name:
                named = found.position
                del ids[index_field]
                break
        canonical[name] = named or reading.position
        if named is None:
            findings.append(f"{held.where}: ids has no row for event {name!r} at {reading.position}")
    for index_field, row in ids.items():
        findings.append(
            f"{held.where}: ids has a row {index_field!r} -> {_unpacked(row)} that no event of the log "
            "explains"
        )
    return canonical, findings


def _unpacked(row: bytes) -> str:
    if len(row) != 10:
        return row.decode(errors="replace")
    return f"{int.from_bytes(row[:6], 'big')}-{int.from_bytes(row[6:], 'big')}"


# The reference fold of Counting.


@dataclass
class Folded:
    """The view and the cursor that the log asks for."""

    tables: dict[str, dict[bytes, Any]]
    counts: dict[str, int]
    position: str


def fold(
    readings: list[Reading], canonical: Mapping[str, str], fields: Mapping[str, Mapping[bytes, bytes]]
) -> Folded:
    """applied and views of a clip add up, its category is the last one's; ranked by applied, over all and per
    category; summed up
    per category. fields: of every entry, for the chained checksum."""
    states: dict[str, dict[str, Any]] = {}
    counts: Counter[str] = Counter(
        dict.fromkeys(("applied", "duplicates", "skipped", "dead", "quarantined", "watermark"), 0)
    )
    dead: dict[bytes, Any] = {}
    checksum = 0
    for reading in readings:
        values = fields[reading.position]
        checksum = crc32(
            reading.position.encode() + b" " + (list(values.values())[-1] if values else b"") + b" ", checksum
        )
        counts["read"] += 1
        if reading.kind in ("dead", "quarantined"):
            counts[reading.kind] += 1
            dead[reading.position.encode()] = ...
            continue
        assert reading.event is not None
        event = reading.event
        if reading.kind == "skipped":
            counts["skipped"] += 1
        elif canonical[event["event_id"]] != reading.position:
            counts["duplicates"] += 1
        else:
            counts["applied"] += 1
            counts["watermark"] = max(
                counts["watermark"], (reading.occurred - EPOCH) // timedelta(microseconds=1)
            )
            state = states.setdefault(event["subject"], {"applied": 0, "views": 0, "category": ""})
            state["applied"] += 1
            state["views"] += event["views"]
            state["category"] = event.get("category", "")
    tables: dict[str, dict[bytes, Any]] = {"dead": dead, "states": {}, "all": {}, "most": {}}
    sums: dict[str, dict[str, int]] = {}
    for clip, state in states.items():
        tables["states"][clip.encode()] = state
        for ranking in ("most", "most:" + quote(state["category"], safe="")):
            tables.setdefault(ranking, {})[clip.encode()] = -float(state["applied"])
        row = sums.setdefault(state["category"], {"clips": 0, "applied": 0, "views": 0})
        row["clips"] += 1
        row["applied"] += state["applied"]
        row["views"] += state["views"]
    tables["all"] = {category.encode(): row for category, row in sums.items()}
    last = readings[-1].position if readings else ""
    return Folded(
        {name: rows for name, rows in tables.items() if rows}, {**counts, "checksum": checksum}, last
    )


# The invariants.


def check(held: Held, *, group: str | None = GROUP) -> list[str]:
    """I1, I3 and I5 at quiescence: nothing is being appended, and everything was applied. group: whose
    pending list is empty.
    """
    findings = _of_the_view(held)
    cursor = held.cursor
    last = held.log[-1][0] if held.log else ""
    if cursor.get("position", "") != last:
        findings.append(
            f"{held.where}: the cursor is at {cursor.get('position', '') or 'the start'}, the log ends at "
            f"{last or 'its start'}"
        )
    if held.added is not None and held.added != int(cursor.get("read", 0)):
        findings.append(
            f"{held.where}: {held.added} entries were added to the log, {cursor.get('read', 0)} were read"
        )
    if group is not None and held.pending.get(group):
        findings.append(f"{held.where}: {held.pending[group]} entries are pending in group {group}")
    return findings + check_log(held)


def check_prefix(held: Held) -> list[str]:
    """I4: at this instant, view == fold(log[.. cursor])."""
    return _of_the_view(held)


def _of_the_view(held: Held) -> list[str]:
    cursor = held.cursor
    position = place_of(cursor.get("position", ""))
    # Which entry counts is read of the index as it is now: an entry it names never loses its row, so a prefix
    # may be judged by it.
    readings = [read_entry(place, fields) for place, fields in held.log]
    canonical, _ = canonical_entries(held, readings)
    passed = [reading for reading in readings if place_of(reading.position) <= position]
    wanted = fold(passed, canonical, dict(held.log))
    findings = []
    if cursor.get("position", "") not in ("", wanted.position):
        findings.append(f"{held.where}: the cursor names {cursor['position']}, which the log does not hold")
    for name, count in sorted(wanted.counts.items()):
        if int(cursor.get(name, 0)) != count:
            findings.append(
                f"{held.where}: the cursor says {name} {cursor.get(name, 0)}, the log says {count}"
            )
    return findings + _bounded(compare(held, wanted.tables), f"{held.where}: of the view")


def check_view(held: Held) -> list[str]:
    """I1 alone: the tables == fold(the whole log), whatever the cursor says or whether there is one."""
    readings = [read_entry(place, fields) for place, fields in held.log]
    canonical, _ = canonical_entries(held, readings)
    return _bounded(
        compare(held, fold(readings, canonical, dict(held.log)).tables), f"{held.where}: of the view"
    )


def compare(held: Held, wanted: Mapping[str, Mapping[bytes, Any]]) -> list[str]:
    """I1: every table, every key, every field, every type."""
    findings = []
    tables = held.tables
    for name in sorted(tables.keys() | wanted.keys()):
        kind = "zset" if name == "most" or name.startswith("most:") else "hash"
        tail = f"dead:{GROUP}" if name == "dead" else VIEW + name
        if held.kinds.get(tail, kind) != kind:
            findings.append(f"{held.where}: {name} is a {held.kinds[tail]}, not a {kind}")
        stored, folded = tables.get(name, {}), wanted.get(name, {})
        for key in sorted(stored.keys() | folded.keys()):
            ours, theirs = stored.get(key), folded.get(key)
            if not _equal(ours, theirs):
                findings.append(
                    f"{held.where}: {name} {key.decode(errors='replace')}: the view has {ours!r}, the log "
                    f"says {theirs!r}"
                )
    return findings


def _equal(stored: Any, folded: Any) -> bool:
    if stored is None or folded is None:
        return stored is folded
    if folded is ...:  # a reason for the dead: any sentence
        return bool(stored)
    if isinstance(folded, float):
        return bool(stored == folded)
    try:  # text is compared as JSON in one spelling, in which 1, 1.0 and true differ
        return json.dumps(json.loads(stored), sort_keys=True) == json.dumps(folded, sort_keys=True)
    except ValueError:
        return False


def check_log(held: Held) -> list[str]:
    """I5: order, checksums, keys; and the index, row by row."""
    findings = []
    dead = held.hashes.get(f"dead:{GROUP}", {})
    positions = [place_of(position) for position, _ in held.log]
    if any(later <= earlier for earlier, later in pairwise(positions)):
        findings.append(f"{held.where}: the log is not strictly increasing")
    readings = [read_entry(position, fields) for position, fields in held.log]
    silent = [
        reading.position
        for reading in readings
        if reading.kind == "dead" and reading.position.encode() not in dead
    ]
    findings += _bounded(
        [f"{held.where}: the damaged entry at {position} is not listed as dead" for position in silent],
        held.where,
    )
    findings += _bounded(canonical_entries(held, readings)[1], f"{held.where}: of ids")
    if held.added is not None and held.added != len(held.log):
        trimmed = int(held.hashes.get("meta", {}).get(b"trimmed", 0))
        gone = held.added - len(held.log) - trimmed
        findings += (
            [f"{held.where}: {gone} entries are gone from the log without the trimmer"] if gone else []
        )
    findings += [f"{held.where}: {tail} has a time to live" for tail in held.with_ttl]
    findings += [
        f"{held.where}: nobody knows the key {tail}" for tail in held.kinds if not TAILS.fullmatch(tail)
    ]
    return findings


def check_keys(keys: Iterable[bytes], stream: str) -> list[str]:
    """I5: no key under our prefix that nobody knows. keys: all of the server."""
    known = re.compile(rf"aura:\{{{re.escape(stream)}\.\d+\}}:.*", re.DOTALL)
    names = sorted(key.decode(errors="replace") for key in keys)
    return [
        f"nobody knows the key {name}"
        for name in names
        if not GLOBALS.fullmatch(name) and not known.fullmatch(name)
    ]


@dataclass(frozen=True)
class Ack:
    """What a producer knows of an event: outcome acked or unknown; level memory, replica or disk."""

    event_id: str
    level: str
    outcome: str


def read_acks(path: Path) -> list[Ack]:
    """A producer's file, a JSON object a line; a half last line (the producer was killed) is none."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [Ack(**json.loads(line)) for line in lines if line.endswith("}")]


def check_acks(
    helds: Iterable[Held], acks: Iterable[Ack], *, may_lose: Iterable[str] = (), strangers: bool = False
) -> list[str]:
    """I2. may_lose: levels whose acknowledged events the fault of the test may lose. strangers: others wrote
    to the log as well.
    """
    findings = []
    at: dict[str, list[str]] = {}
    for held in helds:
        for position, fields in held.log:
            reading = read_entry(position, fields)
            if reading.event is not None:
                at.setdefault(reading.event["event_id"], []).append(f"{held.where}/{position}")
    sent: dict[str, set[str]] = {}
    lossy = set(may_lose)
    for ack in acks:
        sent.setdefault(ack.event_id, set()).add(ack.level if ack.outcome == "acked" else "unknown")
    for name, outcomes in sent.items():
        if not at.get(name) and (promised := outcomes - lossy - {"unknown"}):
            findings.append(
                f"event {name!r} was acknowledged at level {', '.join(sorted(promised))} and is not in the "
                "log"
            )
    if not strangers:
        findings += [
            f"event {name!r} is in the log {len(places)} times: {places}"
            for name, places in at.items()
            if len(places) > 1
        ]
        findings += [f"event {name!r} is in the log and nobody sent it" for name in at if name not in sent]
    return _bounded(findings, "of acknowledgements")


def lost(helds: Iterable[Held], acks: Iterable[Ack]) -> dict[str, int]:
    """level -> acknowledged events that are not in the log, and "unknown": those without an answer that are
    not.
    """
    present = {
        reading.event["event_id"]
        for held in helds
        for reading in (read_entry(position, fields) for position, fields in held.log)
        if reading.event is not None
    }
    best: dict[str, str] = {}
    for ack in acks:
        if ack.outcome == "acked" or ack.event_id not in best:
            best[ack.event_id] = ack.level if ack.outcome == "acked" else "unknown"
    return dict(Counter(level for name, level in best.items() if name not in present))


def check_rebuilt(before: Held, after: Held) -> list[str]:
    """I6: the view folded again from nothing has the same bytes in the same tables, and the same cursor."""
    findings = []
    for name in sorted(before.tables.keys() | after.tables.keys()):
        if before.tables.get(name) != after.tables.get(name):
            findings.append(
                f"{before.where}: {name} was rebuilt as {after.tables.get(name)}, it was "
                f"{before.tables.get(name)}"
            )
    moved = dict.fromkeys(["moved_ms"], "")  # by the server's clock
    if before.cursor | moved != after.cursor | moved:
        findings.append(f"{before.where}: the cursor was rebuilt as {after.cursor}, it was {before.cursor}")
    return _bounded(findings, f"{before.where}: of the rebuilt view")


def _bounded(findings: list[str], where: str) -> list[str]:
    rest = len(findings) - NAMED_MAX
    return findings if rest <= 0 else [*findings[:NAMED_MAX], f"{where}: {rest} more of the kind"]
