"""
What is fixed for a stream's life, and which streams are the system's own.

A stream's facts are its row in the registry, the hash aura:streams. Older builds read rows of newer ones: a
field they do not know is passed over. Of the system streams the product tells what it does itself:

    operations  what persons decide (a swap, a trim, an erasure, a retry), with who, when and why: the audit
                trail
    imports     what imports say of themselves
    replays     events that are in another stream already; any name, marked in the registry (is_replay)

No question about "the stream" ever means one of them: they are looked at when they are named, or by a view
that is of them alone. No other module has a list of them.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypedDict

import msgspec

from aurastream.streams.errors import RegistryDamaged
from aurastream.streams.keys import PARTITIONS_MAX

Where = Literal["here", "kafka"]
HERE: Where = "here"


class StreamFacts(msgspec.Struct, frozen=True):
    """log: where its entries are. versioned: whether it keeps a version of every subject. is_replay: its
    events were replayed from another stream, so that processors that are silent in a replay leave it alone.
    is_topic: it has the messages of Faust apps (topics.py); None in a row of a build that did not say so.
    created_ms: the server's time; 0 in such a row.
    """

    partitions: Annotated[int, msgspec.Meta(ge=1, le=PARTITIONS_MAX)]
    versioned: bool = False
    log: Where = "here"
    is_replay: bool = False
    is_topic: bool | None = None
    created_ms: int = 0


class Fixed(TypedDict, total=False):
    """The facts as options of ``open_stream``; what is left out is as in StreamFacts, partitions as in the
    settings.
    """

    partitions: int | None
    versioned: bool
    log: Where
    is_replay: bool
    is_topic: bool


def facts_of(name: str, row: bytes) -> StreamFacts:
    """A row of the registry. Raises RegistryDamaged."""
    try:
        return msgspec.json.decode(row, type=StreamFacts)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RegistryDamaged(name, row.decode(errors="backslashreplace"), str(error)) from error


def is_row_whole(row: bytes) -> bool:
    """Whether the row's names are those that some build writes: the first of ours, or all of them and then a
    newer one's. A name that was changed is passed over by who reads the row, and its value lost.
    """
    names, ours = (
        list(msgspec.json.decode(row, type=dict[str, msgspec.Raw])),
        list(StreamFacts.__struct_fields__),
    )
    return names == ours[: len(names)] or names[: len(ours)] == ours


OPERATIONS = "operations"
IMPORTS = "imports"
REPLAY_PREFIX = "replay."  # of the streams that a replay into a projection makes, which are removed after it
_NAMED = frozenset({OPERATIONS, IMPORTS})


def is_audit(name: str) -> bool:
    """Whether it is the audit trail's: what is replayed into it would read as done again."""
    return name in _NAMED


def is_system(name: str, facts: StreamFacts) -> bool:
    """Whether the stream is one of the product's own, or repeats another."""
    return name in _NAMED or facts.is_replay
