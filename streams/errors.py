"""
What can go wrong with the log, each error a sentence: what happened, where, what to do.

Facts are kept as attributes. What is expected (a duplicate, an empty read) is a value and not here.
"""

from __future__ import annotations


class StreamError(Exception):
    """Base of every error of this package."""


class InvalidEvent(StreamError):
    """An event that must not enter the log; nothing of its batch was written."""

    def __init__(self, event_id: str, reason: str, index: int | None = None) -> None:
        where = "" if index is None else f" (number {index + 1} of the batch)"
        super().__init__(f"event {event_id!r}{where} was refused: {reason}. Nothing of its batch was appended.")
        self.event_id, self.reason, self.index = event_id, reason, index


class DamagedEntry(StreamError):
    """An entry of the log whose content cannot be trusted or read."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(
            f"the entry at {where} cannot be used: {reason}. It stays in the log; projections list it in dead:<group>. "
            "Find its producer in the audit trail, or restore the partition from a copy if others are damaged too."
        )
        self.where, self.reason = where, reason


class UnknownEventVersion(StreamError):
    """The log holds a newer version of an event type than this build knows."""

    def __init__(self, event_type: str, version: int, known: int) -> None:
        super().__init__(
            f"cannot decode {event_type!r} version {version}: this build knows up to version {known}. "
            "Deploy the build that wrote it; the events stay in the log until then."
        )
        self.event_type, self.version, self.known = event_type, version, known


class VersionConflict(StreamError):
    """The entity has moved on since the caller looked; nothing was appended."""

    def __init__(self, subject: str, expected: int, actual: int) -> None:
        super().__init__(
            f"{subject!r} is at version {actual}, not {expected}: someone else appended first. "
            "Nothing was appended; read the entity again and decide anew."
        )
        self.subject, self.expected, self.actual = subject, expected, actual


class NotReplicated(StreamError):
    """The events are in the log, but too few replicas vouched for them in time."""

    def __init__(self, wanted: int, got: int, timeout_ms: int) -> None:
        super().__init__(
            f"appended, but only {got} of {wanted} replicas confirmed within {timeout_ms} ms. "
            "Append the same events again (they count once) until it holds, or ask for a weaker acknowledgement."
        )
        self.wanted, self.got, self.timeout_ms = wanted, got, timeout_ms


class BacklogFull(StreamError):
    """A partition's slowest group is a whole budget behind, so the log takes no more for now. Nothing is lost: append again later."""

    def __init__(
        self, stream: str, partition: int, group: str, backlog: tuple[int, int], budget: tuple[int, int], refused: int
    ) -> None:
        """backlog and budget: events, bytes. refused: how many of the call's events are not in the log."""
        super().__init__(
            f"{refused} events were not appended: the group {group!r} is {backlog[0]:,} events ({backlog[1]:,} bytes) behind in "
            f"{stream}/{partition}; the budget is {budget[0]:,} events, {budget[1]:,} bytes. Start its consumer and append the same "
            f"events again (they count once). If it is gone for good: `aurastream groups forget {group} --stream {stream}`."
        )
        self.stream, self.partition, self.group, self.refused = stream, partition, group, refused
        self.events, self.bytes = backlog
        self.budget_events, self.budget_bytes = budget


class UnknownOutcome(StreamError):
    """The connection was lost so often that it is not known whether the events are in the log."""

    def __init__(self, what: str, attempts: int) -> None:
        super().__init__(
            f"{what}: no answer in {attempts} attempts, so the outcome is unknown. "
            "Repeat it with the same event IDs once the server answers; what arrived already counts once."
        )
        self.what, self.attempts = what, attempts


class ServerUnfit(StreamError):
    """The server's settings would lose or change data; the process refuses to start."""


class StreamUnknown(StreamError):
    """No stream of that name is registered on the server."""

    def __init__(self, stream: str, known: list[str]) -> None:
        choices = ", ".join(known) if known else "none yet"
        super().__init__(f"there is no stream {stream!r} on this server (streams: {choices}). Import or append first.")
        self.stream, self.known = stream, known


class PartitionMismatch(StreamError):
    """The stream was created with another number of partitions."""

    def __init__(self, stream: str, recorded: int, configured: int) -> None:
        super().__init__(
            f"stream {stream!r} has {recorded} partitions, this process is configured for {configured}. "
            f"Set partitions to {recorded}; to change the number, create a new stream with {configured} partitions, "
            "append the old stream's events to it (their IDs keep them single) and point the workers there."
        )
        self.stream, self.recorded, self.configured = stream, recorded, configured


class InvariantBroken(StreamError):
    """Something that must never happen did; whoever meets it stops; its events stay in the log, after the cursor."""
