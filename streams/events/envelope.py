"""
The envelope that every event has, and the bounds every event keeps.

An event is a frozen msgspec struct: the envelope's fields (``Event``) and its own. Its tag is its name in the
log for ever; the class may be renamed. New fields get defaults, so that old entries decode for ever.

    class Sold(Event, frozen=True, kw_only=True, tag="shop.sold"):
        schema_version = 2
        upcasters = {1: from_1}         # JSON content of version 1 -> that of version 2
        items: Count

Decision (2026-11): who reads passes over fields it does not know, at any depth; what refuses them is append
(``Codec.admit``). So a new field with a default may be written while old hosts run. Refused: to take such an
event for damaged, as it was: an old host went on without it.
Decision (2026-11): upcasters are an attribute of the event class, by the version they read, as the class is
what everybody has who decodes: a fold, a test in memory, a verb. Refused: a decorator, whose function is
found only if its module was imported; a table beside the types, which every reader must be given.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Annotated, Any, ClassVar, TypeAlias

import msgspec

Json: TypeAlias = dict[str, Any]  # a JSON object, decoded
Upcaster: TypeAlias = Callable[[Json], Json]

COUNT_MAX = 2**53 - 1  # the largest integer that Lua, JSON readers and IEEE doubles all hold exactly
# No braces (hash tags), no blanks, nothing a terminal would obey.
IDENTIFIER = re.compile(r"[A-Za-z0-9_.:-]{1,128}")

Count = Annotated[int, msgspec.Meta(ge=0, le=COUNT_MAX)]
Instant = Annotated[datetime, msgspec.Meta(tz=True)]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]
TEXT_MAX = 1_000  # characters
# characters of a sealed text: 1,000 of four bytes each, 16 for its seal, in base64, and what names its key
SEALED_MAX = 5_500
ShortText = Annotated[str, msgspec.Meta(max_length=TEXT_MAX)]
# At most TEXT_MAX when appended; sealed where there is a creator.
PersonalText = Annotated[str, msgspec.Meta(max_length=SEALED_MAX)]


class Event(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,  # by which the codec sees that an entry has some, and looks closely
    omit_defaults=True,
    tag_field="type",
    tag="",
):
    """One fact, in the past tense: the envelope that every event has.

    event_id: its identity, the same on every delivery; 1 to 128 of ``A-Za-z0-9_.:-``. Derive it from the
    facts (ids.py).
    subject: the entity it is about, and the partition key; the same characters. Order holds within a subject.
    occurred_at: event time with an offset; at most 24 h ahead of the server's clock.
    source: the worker and instance that saw it. correlation_id: the story it belongs to. causation_id: the
    event that led to it. traceparent: W3C Trace Context.
    version: the schema version the entry was written in; set by the codec from ``schema_version``.

    upcasters: version -> a pure function from the JSON content of an event of that version to that of the
    next; one for every version before ``schema_version``. What it raises makes readers wait at the event.

    personal: of a class with personal data, the names of those fields, each a PersonalText. Such a class has
    a field ``creator`` too, a ShortText: the platform's id of the person they are about. They are sealed
    under the creator's key when the event is appended (keyring.py), and the stored creator is a pseudonym.
    creator "": nothing is sealed.
    """

    schema_version: ClassVar[int] = 1
    upcasters: ClassVar[Mapping[int, Upcaster]] = {}
    personal: ClassVar[tuple[str, ...]] = ()

    event_id: str
    subject: str
    occurred_at: Instant
    source: ShortText = ""
    correlation_id: ShortText = ""
    causation_id: ShortText = ""
    traceparent: ShortText = ""
    version: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1
