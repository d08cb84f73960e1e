"""
The settings that define a view are recorded with its generation, and used by whoever opens it.

    record of the generations: settings -> as_recorded -> the projection by these, where it then is the one
        that
        folded the view

So a host, ``check`` and all that looks back fold a view as it was folded, whatever their own environment
says: that decides what a rebuild makes, and what a fresh view is made by. Where the code has changed as
well (a version, an event type), the settings alone do not make it the definition, and it is refused as
before.

Decision (2026-11): the settings' JSON in the record, made by the one who claims or rebuilds. Refused:
settings of the environment alone, by which a process with another value finds differences where there are
none, and no lane of the view has a host. Records of earlier builds have none, and are given them by the
first host that has the definition.
"""

from __future__ import annotations

from typing import Any

from pydantic_settings import BaseSettings

from aurastream.projections.engine.definition import may_go_on
from aurastream.projections.engine.generations import Generation, read_record
from aurastream.projections.engine.projection import AnyProjection
from aurastream.streams import Stream


def as_recorded(projection: AnyProjection, item: Generation | None) -> AnyProjection:
    """The projection by the settings of a generation; as it is, where these do not make it the definition
    that folded that.
    """
    kind = projection.settings_type
    if (
        item is None
        or not item.settings
        or kind is None
        or may_go_on(item.fingerprint, projection.fingerprint)
    ):
        return projection
    made = _by_settings(type(projection), kind, item.settings)
    return made if made is not None and may_go_on(item.fingerprint, made.fingerprint) else projection


def as_live(stream: Stream, projection: AnyProjection, generation: int | None = None) -> AnyProjection:
    """The projection by the settings of a view's live generation, or of the one of that number."""
    record = read_record(stream.server, stream.name, projection.name)
    return as_recorded(projection, record.find(record.live if generation is None else generation))


def unlike(recorded: AnyProjection, own: AnyProjection) -> str:
    """What the two have different settings of, for a sentence: "hours is 72.0, here 6.0"; "" for nothing."""
    if recorded.settings is None or recorded.settings == own.settings:
        return ""
    ours: dict[str, Any] = own.settings.model_dump()
    theirs: dict[str, Any] = recorded.settings.model_dump()
    return ", ".join(
        f"{name} is {value}, here {ours.get(name)}"
        for name, value in theirs.items()
        if value != ours.get(name)
    )


_made: dict[tuple[type[AnyProjection], str], AnyProjection] = {}  # one object for all looks: a lane keeps it


def _by_settings(
    kind: type[AnyProjection], settings_type: type[BaseSettings], settings: str
) -> AnyProjection | None:
    """None where they are not settings of this class: another version's."""
    if (kind, settings) not in _made:
        try:
            _made[kind, settings] = kind(settings_type.model_validate_json(settings))
        except (ValueError, TypeError):
            return None
    return _made[kind, settings]
