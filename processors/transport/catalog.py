"""
The topics a worker knows, and how many partitions each has.

A topic's stream is registered when it is first used, like a Kafka topic that is created automatically, and
marked as a topic, which no view folds (streams/topics.py). One that exists is what it was made as, and keeps
its number of partitions, whatever the app asks for.
"""

from __future__ import annotations

import asyncio
from functools import partial

from aurastream.processors.transport.names import is_leader_topic, stream_of
from aurastream.streams import Backoff, Keys, Logger, NotAnswered, Server, Settings, aside, open_stream

log = Logger(__name__)


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
        """The keys; registers the stream where it is new, however long the server refuses that. Raises
        StreamUnknown where it may not, TopicNameRefused, ServerUnfit.
        """
        known, pauses, is_said = self._known.get(topic), Backoff(), False
        while known is None:
            try:
                known = await aside(partial(self._open, topic, partitions or self._partitions))
            except NotAnswered as error:
                if not is_said:
                    log.warning("topic_waits", topic=topic, reason=str(error))
                    is_said = True
                await asyncio.sleep(pauses.next_s())
        self._known[topic] = known
        return known

    def _open(self, topic: str, partitions: int) -> tuple[Keys, ...]:
        name = stream_of(topic)
        if is_leader_topic(topic):
            return (Keys(name, 0),)
        once = {"partitions": partitions, "attempts_max": 1, "server_wait_s": 0}
        settings = Settings().model_copy(update=once)
        return open_stream(self._server, name, settings=settings, create=self._may_create, is_topic=True).keys
