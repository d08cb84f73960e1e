"""
Check the equation: fold the log anew in Python, compare every table of every view, and audit the counts.

    for each projection and partition:  view and cursor (one instant) == fold(log[.. cursor]), and nothing of
                                        the log is missing

The fold runs the projections' own code over the raw entries and the ids index, batch by batch, from the
archive where the log was trimmed; the views are read by one snapshot per partition, so a check may run beside
live consumers. Of a view's generations the live one is checked, and the kept ones of this process's
definition. Memory: one partition's view twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from aurastream.projections.engine.definition import may_go_on
from aurastream.projections.engine.errors import ProjectionRedefined
from aurastream.projections.engine.evidence import ServerIndex
from aurastream.projections.engine.generations import read_record
from aurastream.projections.engine.memory import MemoryView
from aurastream.projections.engine.projection import AnyProjection
from aurastream.projections.engine.reads import View
from aurastream.projections.tables import pairs
from aurastream.streams import Cursor, History, Keys, Stream, generation_group, lag_of

DIFFERENCES_MAX = 10  # named per partition; all are counted
COUNTED = (
    "position",
    "read",
    "read_bytes",
    "applied",
    "duplicates",
    "skipped",
    "dead",
    "quarantined",
    "checksum",
    "watermark",
)
LOOKS_MAX = 100  # at a view whose consumer makes new tables (categories) while it is being checked


class Difference(msgspec.Struct, frozen=True):
    """A row that differs: what the view holds and what the log says; "" for absent."""

    table: str
    key: str
    view: str
    log: str


class Checked(msgspec.Struct, frozen=True):
    """One projection's view of one partition against its log."""

    projection: str
    stream: str
    partition: int
    position: str
    events: int
    applied: int
    duplicates: int
    dead: int
    rows: int
    differing: int
    differences: list[Difference]
    complaints: list[str]  # of the audit: missing entries, a rewound log, counts that do not add up
    generation: int = 1
    is_live: bool = True  # False: a generation kept for a rollback, which nobody reads

    @property
    def is_equal(self) -> bool:
        """Whether the equation holds."""
        return not self.differing and not self.complaints


def check(
    stream: Stream,
    projections: list[AnyProjection],
    *,
    generation: int | None = None,
    history: History | None = None,
) -> Iterator[Checked]:
    """One Checked per projection, generation and partition, in that order; none for a log that is in Kafka.

    generation: this one only. history: reads the archive too; needed where the log was trimmed.
    """
    if not stream.is_log_here:
        return  # nothing to fold: the entries are in Kafka
    for projection in projections:
        live, numbers = checked_generations(stream, projection)
        for number in numbers if generation is None else [generation]:
            for partition in range(stream.partitions if projection.takes(stream) else 0):
                checked = check_partition(stream, projection, partition, number, history)
                yield msgspec.structs.replace(checked, is_live=number == live)


def checked_generations(stream: Stream, projection: AnyProjection) -> tuple[int, list[int]]:
    """The live one; and with it the others that are kept up by this definition."""
    record = read_record(stream.server, stream.name, projection.name)
    return record.live, sorted({record.live, *record.followed(projection.fingerprint)})


def check_partition(
    stream: Stream,
    projection: AnyProjection,
    partition: int,
    generation: int = 1,
    history: History | None = None,
) -> Checked:
    """Fold one partition's log up to the view's cursor and compare.

    Tables are listed first and read at one instant then. Where the fold knows of one that was not there to be
    listed, all are read again, with it, and the fold goes on to that instant.
    """
    view = View(stream, projection, generation=generation)
    past = history or History(stream)
    folded = MemoryView(projection, stream.keys[partition].where)
    names, complaints = _named(_keys_of(view, partition), view.key(partition, ""))
    for _ in range(LOOKS_MAX):
        cursor, stored = stored_tables(view, partition, sorted(names))
        complaints += _fold_log(past, partition, folded.obeying(stored.get("dead", {})), cursor)
        if not (unlisted := flat(folded).keys() - names - {"dead"}):
            break
        names |= unlisted
    differences = list(compare(stored, flat(folded)))
    complaints += _audit(stream, partition, cursor, folded.cursor)
    complaints += [*_redefined(folded, cursor), *_read_now(stored.get("dead", {}), folded)]
    return Checked(
        projection=projection.name,
        stream=stream.name,
        partition=partition,
        position=cursor.position,
        events=cursor.read,
        applied=cursor.applied,
        duplicates=cursor.duplicates,
        dead=cursor.dead,
        rows=sum(len(table) for table in stored.values()),
        differing=len(differences),
        differences=differences[:DIFFERENCES_MAX],
        complaints=complaints,
        generation=generation,
    )


def _redefined(folded: MemoryView, cursor: Cursor) -> list[str]:
    """The complaint about a view that was folded by another definition."""
    stored, own = cursor.fingerprint, folded.projection.fingerprint
    if stored == "" or may_go_on(stored, own):
        return []
    return [str(ProjectionRedefined(folded.projection.name, folded.where, stored, own))]


def _read_now(dead: dict[str, str], folded: MemoryView) -> list[str]:
    """The complaint about entries that the view has set aside and this build reads."""
    if not (read := dead.keys() - folded.dead.keys()):
        return []
    name, where = folded.projection.name, folded.where
    verb = f"aurastream rebuild {name} --stream {where.rpartition('/')[0]}"
    return [
        f"{len(read)} entries of {where} that {name!r} has set aside as damaged are none to this build, "
        f"whose types or upcasters read them: `{verb}` folds them too"
    ]


def table_names(view: View[Any], partition: int) -> set[str]:
    """The tables of a partition's view, ours or not, without their prefix; those whose name is no text are
    left out.
    """
    return _named(_keys_of(view, partition), view.key(partition, ""))[0]


def _keys_of(view: View[Any], partition: int) -> list[bytes]:
    return list(
        view.stream.server.client.scan_iter(match=_literal(view.key(partition, "")) + "*", count=1_000)
    )


def _named(keys: list[bytes], prefix: str) -> tuple[set[str], list[str]]:
    """The tables' names, and a complaint for each key whose name is no text, as a flipped bit leaves it."""
    names, complaints = set(), []
    for key in keys:
        try:
            names.add(key.decode()[len(prefix) :])
        except UnicodeDecodeError:
            complaints.append(
                f"the key {key.decode(errors='backslashreplace')} is none of the view's: its name was changed"
            )
    return names, complaints


def stored_tables(
    view: View[Any], partition: int, names: list[str]
) -> tuple[Cursor, dict[str, dict[str, str]]]:
    """The cursor and these tables of a partition's view, and its dead entries, at one instant."""
    group = generation_group(view.projection.name, view.generation)
    prefix, dead = view.key(partition, ""), view.stream.keys[partition].dead(group)
    cursor, values = view.keys_at_once(partition, [*(prefix + name for name in names), dead])
    tables = dict(zip([*names, "dead"], map(pairs, values), strict=True))
    return cursor, {
        name: {key: _text(raw) for key, raw in table.items()} for name, table in tables.items() if table
    }


def _fold_log(history: History, partition: int, folded: MemoryView, cursor: Cursor) -> Iterator[str]:
    """Fold the log on, up to the cursor; yields what the index could not explain."""
    stream = history.stream
    index = ServerIndex(stream, partition)
    if not cursor.position:
        return
    for span in history.spans(partition, folded.cursor.position or "0-0", cursor.position):
        batch = folded.decode(span.raw, span.duplicates)
        batch.judge(index)
        for item in batch.adopted:
            yield f"the index has no row for the entry at {item.position.decode()}, which was counted"
        folded.fold(batch)


def flat(folded: MemoryView) -> dict[str, dict[str, str]]:
    """The folded tables under the names of their keys."""
    tables: dict[str, dict[str, str]] = {}
    for name, table in folded.tables.items():
        declared, colon, part = name.partition(":")
        if table:
            key = Keys("x", 0).view("x", 1, declared, part if colon else None)
            rows = {row: _text(value) for row, value in table.items()}
            tables[key.rpartition(":view:x:1:")[2]] = rows
    if folded.dead:
        tables["dead"] = dict(folded.dead)
    return tables


def compare(stored: dict[str, dict[str, str]], folded: dict[str, dict[str, str]]) -> Iterator[Difference]:
    """Every row of any table that is not equal, or in one of the two alone."""
    for table in sorted(stored.keys() | folded.keys()):
        ours, theirs = stored.get(table, {}), folded.get(table, {})
        for key in sorted(ours.keys() | theirs.keys()):
            if _differ(ours.get(key, ""), theirs.get(key, "")):
                yield Difference(table, key, ours.get(key, ""), theirs.get(key, ""))


def _differ(stored: str, folded: str) -> bool:
    """Texts; scores are compared as numbers, as servers print them differently."""
    if stored == folded:
        return False
    try:
        return float(stored) != float(folded)
    except ValueError:
        return True


def _audit(stream: Stream, partition: int, cursor: Cursor, folded: Cursor) -> Iterator[str]:
    """Counts that must add up, each complaint a sentence."""
    where = stream.keys[partition].where
    lag = lag_of(stream.server, stream.keys[partition], cursor)
    if lag.rewound:
        yield f"the log of {where} ends before the cursor {cursor.position}: it was restored or re-created"
    if lag.missing:
        yield f"{lag.missing} entries of {where} are gone without the trimmer: XDEL, XTRIM or DEL by hand"
    for name in COUNTED:
        ours, theirs = getattr(cursor, name), getattr(folded, name)
        if ours != theirs:
            yield f"{where}: the cursor says {name} {ours}, the log {theirs}"
    if cursor.read and not cursor.fingerprint:
        yield f"{where}: the cursor does not say by which definition the view was folded"


def _literal(key: str) -> str:
    """The key as a glob that matches only itself."""
    return "".join(f"\\{char}" if char in "*?[]\\" else char for char in key)


def _text(value: Any) -> str:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)
