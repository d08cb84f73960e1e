"""
The same fold delivered at least once: what an apply costs where nothing keeps a crash from counting twice.

    read by group -> fold -> the view's writes, plainly, and XACK

The fold, its states, the absolute writes, the checksum test and the decoding are the product's. Left out is
what makes it exactly
once: the cursor and its comparison, the check of the event IDs against the index, the checksum of the batch,
one script for all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from typing import Any

from aurastream.projections import Projection
from aurastream.projections.engine.fold import Fold
from aurastream.projections.tables import Change, Due, Need
from aurastream.streams import Codec, InvariantBroken, Server, Stream, relay
from aurastream.streams.entries import RawEntry, entries_json
from aurastream.streams.keys import Keys

BATCH_MAX = 1_000  # entries a read, as in the product's consumer

Commands = list[tuple[Any, ...]]
Steps = Generator[Commands, list[Any], Commands]  # yields reads, is sent their answers, returns the writes


class PlainView:
    """One partition's view, folded as the product does."""

    def __init__(self, projection: Projection[Any], keys: Keys) -> None:
        self.keys, self.group = keys, projection.name
        self._codec: Codec = projection.codec()
        self._fold = Fold(projection, keys.where)

    def events(self, raw: list[RawEntry]) -> list[tuple[str, Any]]:
        """Raw entries checked and decoded: (position, event)."""
        jsons = entries_json([fields for _, fields in raw])
        if jsons is None:
            raise InvariantBroken(f"{self.keys.where} holds a damaged entry: the benchmark appended none")
        events = self._codec.decode_each(jsons)
        return [(position.decode(), event) for (position, _), event in zip(raw, events, strict=True)]

    def folded(self, events: list[tuple[str, Any]]) -> Steps:
        """Fold a batch; yields the reads it needs and returns the writes."""
        changes = yield from relay(self._fold.batch(events), self._loaded)
        return [command for change in changes for command in self._writes(change)]

    def _loaded(self, need: Need) -> Generator[Commands, list[Any], list[Any]]:
        key = self._table(need.table)
        if isinstance(need, Due):
            (due,) = yield [("ZRANGEBYSCORE", key, "-inf", need.until)]
            return [member.decode() for member in due]
        (rows,) = yield [("HMGET", key, *need.keys)]
        return rows

    def _table(self, name: str, part: str | None = None) -> str:
        return self.keys.view(self.group, 1, name, part)

    def _writes(self, change: Change) -> Commands:
        key = self._table(change.table, change.part)
        return [(command, key, *parts) for command, parts in change.writes()]


def make_groups(server: Server, stream: Stream, group: str) -> None:
    """A group at the start of every partition."""
    for keys in stream.keys:
        server.client.execute_command("XGROUP", "CREATE", keys.log, group, "0", "MKSTREAM")


def consume(server: Server, stream: Stream, projection: Projection[Any]) -> None:
    """All there is, the partitions in turn over one connection: one folds while the server works for another,
    as in Consumer.
    """
    make_groups(server, stream, projection.name)
    wire = server.wire(stream.keys[0].log)
    running: deque[tuple[Generator[Commands, list[Any], None], int]] = deque()

    def resume(flow: Generator[Commands, list[Any], None], answers: Any) -> None:
        try:
            commands = flow.send(answers)
        except StopIteration:
            return
        wire.send(commands)
        running.append((flow, len(commands)))

    for keys in stream.keys:
        resume(_flow(PlainView(projection, keys)), None)
    while running:
        flow, count = running.popleft()
        resume(flow, checked([wire.receive() for _ in range(count)]))
    wire.close()


def checked(answers: Iterable[Any]) -> list[Any]:
    """The answers. Raises the first error among them."""
    found = list(answers)
    for answer in found:
        if isinstance(answer, Exception):
            raise answer
    return found


def _flow(view: PlainView) -> Generator[Commands, list[Any], None]:
    count = ("COUNT", BATCH_MAX, "NOACK")
    read = ("XREADGROUP", "GROUP", view.group, "owner", *count, "STREAMS", view.keys.log, ">")
    answers = yield [read]
    while answers[-1]:
        raw = answers[-1][0][1]
        writes = yield from view.folded(view.events(raw))
        answers = yield [
            *writes,
            ("XACK", view.keys.log, view.group, *[position for position, _ in raw]),
            read,
        ]
