"""
Topics and streams: which stream a Faust topic is, and which topic a stream is.

A topic whose name is legal for a stream is that stream. Any other is quoted into legal characters,
reversibly:

    Orders  ->  quoted._4frders         _ and the two hexadecimal digits of a UTF-8 byte, for all but a-z 0-9
            . -

The same for app ids, which become group names.
"""

from __future__ import annotations

import re

from aurastream.processors.transport.errors import TopicNameRefused
from aurastream.streams import NAME

LEADER_SUFFIX = "-__assignor-__leader"  # Faust's own: the owner of partition 0 of this topic is the leader
LENGTH_MAX = 64

_QUOTED = "quoted."
_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789.-")


def stream_of(topic: str) -> str:
    """The stream's name. Raises TopicNameRefused when it would be too long."""
    if NAME.fullmatch(topic) and not topic.startswith(_QUOTED):
        return topic
    quoted = "".join(chr(byte) if byte in _PLAIN else f"_{byte:02x}" for byte in topic.encode())
    if len(_QUOTED + quoted) > LENGTH_MAX:
        raise TopicNameRefused(topic, len(_QUOTED + quoted), LENGTH_MAX)
    return _QUOTED + quoted


def topic_of(stream: str) -> str:
    """The topic whose stream this is."""
    if not stream.startswith(_QUOTED):
        return stream
    plain = re.sub(
        rb"_([0-9a-f]{2})", lambda digits: bytes([int(digits[1], 16)]), stream.removeprefix(_QUOTED).encode()
    )
    return plain.decode()


def is_leader_topic(topic: str) -> bool:
    """Whether it is only there to be owned: it has no log."""
    return topic.endswith(LEADER_SUFFIX)
