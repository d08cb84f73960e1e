"""The events of a stream of batches, one by one, for agents that want no more."""

from __future__ import annotations

from collections.abc import AsyncIterator

from faust.types import StreamT

from aurastream.processors import find_plugins
from aurastream.processors.host import RawBatch, batches
from aurastream.streams import Codec, DamagedEntry, Event, Logger, Settings, entry_json

HANDED_MAX = 2_000  # entries: a batch waits in queues, and nobody knows what its lane could take

log = Logger(__name__)


async def events(stream: StreamT[RawBatch], codec: Codec | None = None) -> AsyncIterator[Event]:
    """The stream's events in order; those of types the codec does not know are left out.

    codec: default: of all installed plugins. A damaged entry is logged and left out; it stays in the log.
    """
    decode = (codec or find_plugins().codec()).decode
    async for batch in batches(stream):
        for position, fields in batch.entries:
            where = f"{batch.stream}/{batch.partition}/{position.decode()}"
            try:
                event = decode(entry_json(where, fields), where)
            except DamagedEntry as error:
                log.error("entry_damaged", where=where, reason=error.reason)
                continue
            if event is not None:
                yield event


def entries_max() -> int:
    """How many entries a batch may hold: AURASTREAM_BATCH_MAX, and no more than HANDED_MAX."""
    return min(Settings().batch_max, HANDED_MAX)
