"""
The topics a worker knows, and how many partitions each has.

A topic's stream is registered when it is first used, like a Kafka topic that is created automatically, and
marked as a topic, which no view folds (streams/topics.py). One that exists is what it was made as, and keeps
its number of partitions, whatever the app asks for.
"""

from __future__ import annotations

import asyncio

from aurastream.processors.transport.names import is_leader_topic, stream_of
from aurastream.streams import Keys, Server, Settings, open_stream, retried


class Catalog:
    """Topic -> the keys of its partitions."""

    def __init__(self, server: Server, partitions: int, may_create: bool) -> None:
        """partitions: of topics that are new. may_create: Faust's topic_allow_declare."""
        self._server, self._partitions, self._may_create = server, partitions, may_create
        self._known: dict[str, tuple[Keys, ...]] = {}

    def get(self, topic: str) -> tuple[Keys, ...] | None:
        """The keys, of a topic that was used before."""
        return self._known.get(topic)

    async def ensure(self, topic: str, partitions: int | None = None) -> tuple[Keys, ...]:
        """The keys; registers the stream where it is new. Raises StreamUnknown where it may not,
        TopicNameRefused, ServerUnfit.
        """
        known = self._known.get(topic)
        if known is None:
            known = self._known[topic] = await asyncio.to_thread(
                self._open, topic, partitions or self._partitions
            )
        return known

    def _open(self, topic: str, partitions: int) -> tuple[Keys, ...]:
        name = stream_of(topic)
        if is_leader_topic(topic):
            return (Keys(name, 0),)
        settings = Settings().model_copy(update={"partitions": partitions})
        what = f"opening the stream {name}"
        stream = retried(
            what,
            settings.attempts_max,
            lambda: open_stream(
                self._server, name, settings=settings, create=self._may_create, is_topic=True
            ),
            self._server.refresh,
        )
        return stream.keys
