"""What can go wrong with a view, each error a sentence: what happened, where, what to do."""

from __future__ import annotations

from aurastream.projections.tables import ProjectionError
from aurastream.streams import text_of


class ProjectionUnknown(ProjectionError):
    """No projection of that name is installed."""

    def __init__(self, name: str, known: list[str]) -> None:
        super().__init__(
            f"there is no projection {name!r} (installed: {', '.join(sorted(known)) or 'none'}). Install "
            "its package."
        )
        self.name, self.known = name, known


class ProjectionRedefined(ProjectionError):
    """The view was folded by another definition (version or settings) than this process has."""

    def __init__(self, projection: str, where: str, stored: str, own: str) -> None:
        super().__init__(
            f"the view {projection!r} of {where} was folded by definition {stored}, this process has {own}. "
            "Run with the same version and settings (AURASTREAM_<PROJECTION>_..), or fold it anew: "
            f"run `aurastream rebuild {projection} --stream {where.rpartition('/')[0]} --accept`."
        )
        self.projection, self.where, self.stored, self.own = projection, where, stored, own


class ViewBroken(ProjectionError):
    """A key of the view has a type it never gets from us; nothing was written."""

    def __init__(self, projection: str, key: str, kind: str) -> None:
        super().__init__(
            f"the view {projection!r} cannot be written: the key {key} is a {kind}. Nothing was changed. "
            "Something else wrote it: rename that key away and start again."
        )
        self.projection, self.key, self.kind = projection, key, kind


class LogRewound(ProjectionError):
    """The log has fewer entries than the view has read; nothing was written."""

    def __init__(self, projection: str, where: str, added: int, read: int) -> None:
        super().__init__(
            f"the log of {where} ever got {added} entries, but the view {projection!r} has read {read}: it "
            "was deleted, or restored from an older copy. Nothing was applied. Restore the log and its "
            "views from one copy, or remove the views' keys with it."
        )
        self.projection, self.where, self.added, self.read = projection, where, added, read


class TrimmedUnread(ProjectionError):
    """Entries that the view has not read were trimmed from the log; nothing was written."""

    def __init__(self, projection: str, where: str, read: int, trimmed: int) -> None:
        super().__init__(
            f"the view {projection!r} has read {read} entries of {where}, and {trimmed} were trimmed from "
            "its log: what lies between is in the archive alone. Nothing was applied. Run `aurastream "
            f"rebuild {projection} --stream {where.rpartition('/')[0]}`, which reads both."
        )
        self.projection, self.where, self.read, self.trimmed = projection, where, read, trimmed


class RecordDamaged(ProjectionError):
    """A view's row in aura:views is none that AuraStream wrote."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(
            f"the generations of a view ({field or 'its row in aura:views'}) cannot be read: {reason}. The "
            "row was changed by hand or damaged: restore it from a copy."
        )
        self.field, self.reason = field, reason


class FoldFailed(ProjectionError):
    """A projection's own code raised; its events stay in the log, after the cursor.

    at: position and event ID. is_exact: it failed on that event alone; else on a batch that ends with it.
    """

    is_exact = True

    def __init__(self, projection: str, where: str, at: tuple[str, str], error: BaseException) -> None:
        position, event_id = at
        super().__init__(
            f"{projection!r} failed on event {event_id!r} at {position} of {where}: "
            f"{type(error).__name__}: {text_of(error)}. "
            "The view stands before it; mend the projection and start again."
        )
        self.projection, self.where, self.position, self.event_id = projection, where, position, event_id
