"""
What is fixed for a stream's life: its row in the registry, the hash aura:streams.

Older builds read rows of newer ones: a field they do not know is passed over.
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
    """

    partitions: Annotated[int, msgspec.Meta(ge=1, le=PARTITIONS_MAX)]
    versioned: bool = False
    log: Where = "here"
    is_replay: bool = False


class Fixed(TypedDict, total=False):
    """The facts as options of ``open_stream``; what is left out is as in StreamFacts, partitions as in the
    settings.
    """

    partitions: int | None
    versioned: bool
    log: Where
    is_replay: bool


def facts_of(name: str, row: bytes) -> StreamFacts:
    """A row of the registry. Raises RegistryDamaged."""
    try:
        return msgspec.json.decode(row, type=StreamFacts)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RegistryDamaged(name, row.decode(errors="backslashreplace"), str(error)) from error
