"""What the transport refuses, each a sentence with the remedy. NotOffered is in host/batching.py."""

from __future__ import annotations

from aurastream.processors import ProcessorError


class TopicNameRefused(ProcessorError):
    """A topic's name has no stream name."""

    def __init__(self, topic: str, length: int, length_max: int) -> None:
        super().__init__(
            f"the topic {topic[:80]!r} cannot be a stream: its name takes {length} characters (capitals and "
            "other characters that are "
            f"not a-z 0-9 . - take three each), the limit is {length_max}. Use a shorter name."
        )
        self.topic = topic
