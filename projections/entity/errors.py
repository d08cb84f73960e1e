"""
Why an entity cannot be decided on, each with the remedy.
"""

from __future__ import annotations

from aurastream.projections.engine import ProjectionError


class EntityUnfit(ProjectionError):
    """The projection, the stream or the events are not for deciding on entities."""


class EntityIncomplete(ProjectionError):
    """Events of the entity are neither in the log nor in the archive."""

    def __init__(self, subject: str, where: str, position: str) -> None:
        super().__init__(
            f"{subject!r} cannot be folded: its event at {where}/{position} is neither in the log nor in an "
            "archive. It was deleted by hand: restore the log from a copy."
        )
        self.subject, self.where, self.position = subject, where, position


class EntityContended(ProjectionError):
    """Others decided on the entity each time before this process could append."""

    def __init__(self, subject: str, attempts: int) -> None:
        super().__init__(
            f"{subject!r} changed {attempts} times between look and append: others decide on it all the "
            "time. Nothing was appended; decide again later, or let one process decide on it."
        )
        self.subject, self.attempts = subject, attempts
