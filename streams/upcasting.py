"""
Upcasters: from the content of an older version of an event to today's.

    event classes (``Event.upcasters``), and what else a caller has -> a step per type and version
    content of version n -> step n -> .. -> content of today's version

Always true: there is a step for every version before a type's own, or the types are refused; whatever a step
raises is an ``UpcasterFailed`` that names the event.

Decision (2026-11): who reads waits at an event whose upcaster raises, as at one of a newer version: its bytes
are sound, and a better build reads it. Refused: a dead letter, as it was for some exceptions (others ended
the process): the fold went on without an event that nothing was wrong with. An entry that no upcaster can
make sense of, a raw XADD say, is a case for the upcaster, which returns what it shall mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from aurastream.streams.entries import Envelope
from aurastream.streams.errors import StreamError, UpcasterFailed
from aurastream.streams.events import Event, Json, Upcaster

Steps: TypeAlias = dict[tuple[str, int], Upcaster]
_KEPT = ("event_id", "subject")  # who it is and where it lies: the index and the partition go by them


def steps_of(kinds: Iterable[type[Event]], more: Mapping[tuple[str, int], Upcaster]) -> Steps:
    """(tag, version) -> upcaster, of classes and of a caller's own. Raises StreamError: see ``_check``."""
    steps = dict(more)
    for kind in kinds:
        tag = str(kind.__struct_config__.tag)
        for version, upcaster in kind.upcasters.items():
            _check(kind, version, upcaster)
            if steps.setdefault((tag, version), upcaster) is not upcaster:
                raise StreamError(
                    f"{tag!r} has two upcasters from version {version}: {upcaster} and "
                    f"{steps[tag, version]}. Declare it once, in {kind.__name__}.upcasters."
                )
        missing = [version for version in range(1, kind.schema_version) if (tag, version) not in steps]
        if missing:
            raise StreamError(
                f"{tag!r} is at version {kind.schema_version} but has no upcaster from {missing}. Declare it "
                f"in the class: `upcasters = {{{missing[0]}: from_{missing[0]}}}`."
            )
    return steps


def _check(kind: type[Event], version: object, upcaster: object) -> None:
    if type(version) is not int or not 1 <= version < kind.schema_version:
        raise StreamError(
            f"{kind.__name__} is at version {kind.schema_version} and has an upcaster from {version!r}, "
            "which would never be called. Name the version that it reads, which is lower than schema_version."
        )
    if not callable(upcaster):
        raise StreamError(
            f"the upcaster of {kind.__name__} from version {version} is {upcaster!r}, which cannot be "
            "called. Name a function from the content of that version to that of the next."
        )


def upcast(steps: Steps, where: str, envelope: Envelope, content: Json, known: int) -> Json:
    """The content in version `known`. Raises UpcasterFailed."""
    version = envelope.version
    try:
        for version in range(envelope.version, known):
            content = steps[envelope.type, version](content)
        content["version"] = known
        changed = [name for name in _KEPT if content[name] != getattr(envelope, name)]
    except (Exception, SystemExit) as error:
        raise UpcasterFailed(where, envelope, version, error) from error
    if changed:
        raise UpcasterFailed(where, envelope, version, ValueError(f"it changes the event's {changed[0]}"))
    return content
