"""The streams a host has opened, and what it asks their views. Blocking; from any thread, one at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any

from aurastream.projections import Projection, ProjectionError, View
from aurastream.projections.engine import Record, field_of, retire_due
from aurastream.streams import HERE, Codec, Cursor, Logger, Position, Server, Settings, Stream, open_stream

log = Logger("aurastream.host")


class Sources:
    """Streams by name, each with a connection of its own. projections: those the host folds."""

    def __init__(
        self, server: Server, codec: Codec, settings: Settings, projections: Iterable[Projection[Any]]
    ) -> None:
        # Nobody here waits for a server that refuses: the next look comes, and leases must be kept meanwhile.
        self._settings = settings.model_copy(update={"server_wait_s": 0})
        self._server, self._codec = server, codec
        self._projections = list(projections)
        self.lock = threading.RLock()  # streams are not for several
        self.streams: dict[str, Stream] = {}

    def opened(self, name: str, partitions: int | None = None) -> Stream:
        """A stream, created where it is new. partitions: of a Kafka topic."""
        with self.lock:
            if name not in self.streams:
                self.streams[name] = open_stream(
                    self._server,
                    name,
                    codec=self._codec,
                    settings=self._settings,
                    create=True,
                    partitions=partitions,
                    log=HERE if partitions is None else "kafka",
                )
            return self.streams[name]

    def furthest_behind(self, stream: Stream, partition: int) -> Cursor | None:
        """The cursor of the view that is furthest behind. None without a view."""
        with self.lock:
            views = [View(stream, projection) for projection in self._projections if projection.takes(stream)]
            cursors = [view.cursor(partition) for view in views]
        return min(cursors, key=lambda cursor: Position.parse(cursor.position), default=None)

    def retire(self, records: Mapping[str, Record], at_ms: int, group: str) -> None:
        """End the generations of views that were kept long enough."""
        for stream in list(self.streams.values()):
            for projection in self._projections:
                record = records.get(field_of(stream.name, projection.name))
                if record is not None and (record.due(at_ms) or record.outbox or record.building):
                    self._retire(stream, projection.name, group)

    def _retire(self, stream: Stream, projection: str, group: str) -> None:
        where = {"projection": projection, "stream": stream.name}
        try:
            numbers = retire_due(stream, projection, group)
        except ProjectionError as error:  # somebody made it live again meanwhile
            log.warning("retirement_refused", **where, reason=str(error))
            return
        if numbers:
            log.info("generations_retired", **where, generations=numbers)

    def close(self) -> None:
        """Drop their connections."""
        for stream in self.streams.values():
            stream.close()
