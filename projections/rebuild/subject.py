"""
One key of the live view, folded anew from its own events, and put right where it differs.

    the key's events folded alone (subject_fold.py)  \\
    its rows in the live view, at one instant        -> compared -> listed; with accept written, if the view
                                   (subject_rows.py)                is still there

Looked at: the key's state, its places in rankings, its own listings. Not looked at are rows that add up
several keys (totals, roll-ups, listings under another name): one key's events do not say what they should be;
the whole rebuild does.

Always true: rows are written by one script that compares the live cursor, so that a host who goes on
meanwhile loses nothing, and whoever keeps the key's state in memory is refused once and reads it anew. The
same script notes the audit event in the cursor, until it is in the log: who looks next settles what a killed
process left.
"""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime

from aurastream.projections.engine import AnyProjection, Projection, ProjectionError, compare, now_ms
from aurastream.projections.rebuild.compare import Compared
from aurastream.projections.rebuild.record import Decision
from aurastream.projections.rebuild.subject_fold import SubjectFold
from aurastream.projections.rebuild.subject_rows import FACTS, SubjectRows
from aurastream.streams import (
    OPERATIONS,
    Cursor,
    History,
    InvariantBroken,
    SubjectRebuilt,
    check_identifiers,
    named_id,
    open_stream,
)

TRIES_MAX = 50  # looks at a view that moves on between the look and the writing


class SubjectResult(Compared, frozen=True):
    """What came of it; compared are the key's rows. shared: tables that were not looked at. is_written: the
    rows are right now.
    """

    subject: str
    shared: list[str]
    is_written: bool


def _check_keys(projection: AnyProjection) -> None:
    """Raise ProjectionError where keys are not subjects."""
    if type(projection).key is not Projection.key:
        raise ProjectionError(
            f"the keys of {projection.name!r} are not subjects, so the events of one are not known before "
            f"all are read. Rebuild the whole view: `aurastream rebuild {projection.name}`."
        )


def rebuild_subject(
    history: History, projection: AnyProjection, subject: str, decision: Decision, *, accept: bool
) -> SubjectResult:
    """Fold one key anew. accept: write what differs.

    Raises ProjectionError where keys are not subjects, or the view was folded by another definition.
    """
    _check_keys(projection)
    fold, rows = SubjectFold(history, projection, subject), SubjectRows(history.stream, projection, subject)
    for _ in range(TRIES_MAX):
        if result := _tried(fold, rows, decision, accept=accept):
            return result
    raise InvariantBroken(
        f"the view {projection.name} of {rows.keys.where} moved on {TRIES_MAX} times before it could be "
        "written to."
    )


def _tried(fold: SubjectFold, rows: SubjectRows, decision: Decision, *, accept: bool) -> SubjectResult | None:
    """One look and, with accept, one writing; None where the view has moved on between the two."""
    cursor, stored = rows.read()
    _announce(rows, [event for raw in rows.facts if isinstance(event := FACTS.decode(raw), SubjectRebuilt)])
    fold.fold_to(cursor.position, rows.set_aside)
    folded = fold.rows(cursor.watermark)
    differences = list(compare(stored, folded))
    is_written = bool(differences) and accept
    if is_written:
        event = _fact(rows, cursor, decision, len(differences))
        check_identifiers([event])  # what cannot be told is not done
        if not rows.write(cursor, stored, folded, event):
            return None
        _announce(rows, [event])
    return SubjectResult(
        rows.partition,
        cursor.position,
        fold.events,
        sum(len(table) for table in folded.values()),
        len(differences),
        differences,
        rows.subject,
        fold.shared(),
        is_written,
    )


def _fact(rows: SubjectRows, cursor: Cursor, decision: Decision, differing: int) -> SubjectRebuilt:
    """For the audit trail."""
    stream, projection, subject = rows.stream, rows.projection.name, rows.subject
    return SubjectRebuilt(
        event_id=named_id("rebuild", stream.name, projection, subject, cursor.position, cursor.repairs),
        subject=subject,
        source=decision.by,
        occurred_at=datetime.fromtimestamp(now_ms(stream.server) / 1000, UTC),
        stream=stream.name,
        projection=projection,
        differing=differing,
        why=decision.why,
    )


def _announce(rows: SubjectRows, facts: list[SubjectRebuilt]) -> None:
    """Append the facts to the audit trail, where they are once; then the view need not keep them."""
    if not facts:
        return
    stream = rows.stream
    with closing(open_stream(stream.server, OPERATIONS, settings=stream.settings, create=True)) as operations:
        operations.append(facts)
    for event in facts:
        rows.told(event.event_id)
