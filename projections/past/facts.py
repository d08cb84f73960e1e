"""
What a fold of the past has to know of the live log: where it ends, whether append made all of it, and which
entry of an event ID counts.

Always true: what is appended while the past is folded is not part of it, as the end is read once, before.
"""

from __future__ import annotations

import msgspec

from aurastream.projections.engine import AdoptingIndex, Batch, MemoryView
from aurastream.streams import Reply, Span, Stream, at_once, sound


class LogFacts(msgspec.Struct, frozen=True):
    """A partition's log at one instant. last: position of its newest entry, archived or not; "" for none.

    is_pure: append made every entry, so that each event ID is in it once. missing: entries gone without the
    trimmer.
    """

    last: str
    is_pure: bool
    missing: int


def _entries_added(info: Reply) -> int | None:
    """Of XINFO, which is an error for a log that is not there, and does not count them before Redis 7.0."""
    if not isinstance(info, list) or b"entries-added" not in info[::2]:
        return None
    return int(info[2 * info[::2].index(b"entries-added") + 1])


def log_facts(stream: Stream, partition: int) -> LogFacts:
    """In one step, so that what it says of the log holds up to `last`."""
    keys = stream.keys[partition]
    *answers, info = at_once(
        stream.server,
        (keys.log, keys.meta, keys.archive),
        (
            ("XREVRANGE", keys.log, "+", "-", "COUNT", 1),
            ("HMGET", keys.meta, "appended", "trimmed"),
            ("HGET", keys.archive, "position"),
            ("XLEN", keys.log),
            ("XINFO", "STREAM", keys.log),
        ),
    )
    newest, (appended, trimmed), archived, length = sound(answers)
    last = newest[0][0].decode() if newest else (archived or b"").decode()
    added = _entries_added(info)
    missing = max(int(appended or 0), added or 0) - length - int(trimmed or 0)
    return LogFacts(last, added is not None and added == int(appended or 0), max(0, missing))


def settled(view: MemoryView, span: Span, index: AdoptingIndex, *, is_pure: bool = False) -> Batch:
    """A span as a batch to fold: which of its events count is decided, by the archive's marks or by the
    index.

    is_pure: the live log holds each event ID once, so that the index need not be asked.
    """
    batch = view.decode(span.raw, span.duplicates)
    if not is_pure:
        batch.judge(index)
    return batch
