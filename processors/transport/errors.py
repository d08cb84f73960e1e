"""What the transport refuses or cannot do, each a sentence with the remedy."""

from __future__ import annotations

from faust.exceptions import ImproperlyConfigured

from aurastream.processors import ProcessorError


class NotOffered(ProcessorError, ImproperlyConfigured):
    """A feature of Faust that these transports do not have. Raised at definition or at start, never later."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}. {remedy}.")
        self.what, self.remedy = what, remedy


class TopicNameRefused(ProcessorError):
    """A topic's name has no stream name."""

    def __init__(self, topic: str, length: int, length_max: int) -> None:
        super().__init__(
            f"the topic {topic[:80]!r} cannot be a stream: its name takes {length} characters (capitals and "
            "other characters that are "
            f"not a-z 0-9 . - take three each), the limit is {length_max}. Use a shorter name."
        )
        self.topic = topic
