"""
Personal fields of events, before they are encoded: whether a class declares them well, and its texts are fit.

What seals them is in keyring.py.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Protocol, cast

import msgspec

from aurastream.streams.errors import InvalidEvent, StreamError
from aurastream.streams.events import SEALED_MAX, TEXT_MAX, Event
from aurastream.streams.sealing import RESERVED, is_reserved


class Personal(Protocol):
    """An event of a class with personal fields: such a class has a creator (``check_declared``)."""

    @property
    def event_id(self) -> str:
        """As of every event."""
        ...

    @property
    def personal(self) -> tuple[str, ...]:
        """The names of its personal fields; () in a class that has none, which need not have a creator."""
        ...

    @property
    def creator(self) -> str:
        """Whose they are."""
        ...


def check_personal(event: Personal) -> None:
    """Raise InvalidEvent for a personal text that is too long, or that looks sealed and has no creator whose
    key could open it.
    """
    for field in event.personal:
        text: str = getattr(event, field)
        if not is_reserved(text):
            if len(text) > TEXT_MAX:
                raise InvalidEvent(
                    event.event_id, f"Expected `str` of length <= {TEXT_MAX} - at `$.{field}`"
                )  # as of other texts
        elif not event.creator:
            raise InvalidEvent(
                event.event_id,
                f"{field} begins as a sealed text does ({text[:12]}..), and no creator is named",
            )


def check_declared(kind: type[Event]) -> None:
    """Raise StreamError when a class declares personal fields that cannot be sealed."""
    if not kind.personal:
        return
    described = cast(msgspec.inspect.StructType, msgspec.inspect.type_info(kind))
    fields = {
        field.name: field.type for field in described.fields if field.name not in Event.__struct_fields__
    }
    for name in (*kind.personal, "creator"):
        of_type = fields.get(name)
        if not isinstance(of_type, msgspec.inspect.StrType):
            raise StreamError(
                f"{kind.__name__} has personal fields and no text field {name!r} of its own. "
                'Declare each of them as PersonalText, and `creator: ShortText = ""`, which says whose they '
                "are."
            )
        if name != "creator" and (
            of_type.pattern or of_type.min_length or (of_type.max_length or SEALED_MAX) < SEALED_MAX
        ):
            raise StreamError(
                f"a sealed text does not fit the bounds of {kind.__name__}.{name}. Declare it as "
                "PersonalText."
            )


def are_texts_fit(events: list[Event], longest: int) -> bool:
    """``check_personal`` of those without a creator; of others the keyring made the texts. Usually nothing
    needs to be looked at.

    longest: bytes of the longest one encoded.
    """
    kinds = cast(set[type[Event]], set(map(type, events)))
    for kind in [kind for kind in kinds if kind.personal]:
        own = events if len(kinds) == 1 else [event for event in events if type(event) is kind]
        if longest <= TEXT_MAX and not any(
            RESERVED in "".join(map(attrgetter(field), own)) for field in kind.personal
        ):
            continue
        try:
            for event in cast(list[Personal], own):
                if not event.creator:
                    check_personal(event)
        except InvalidEvent:
            return False
    return True
