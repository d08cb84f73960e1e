"""
What can go wrong with the log, each error a sentence: what happened, where, what to do.

Facts are kept as attributes. What is expected (a duplicate, an empty read) is a value and not here.
"""

from __future__ import annotations

import traceback
from typing import Protocol

from aurastream.streams.texts import text_of


class StreamError(Exception):
    """Base of every error of this package."""


class InvalidEvent(StreamError):
    """An event that must not enter the log; nothing of its batch was written."""

    def __init__(self, event_id: str, reason: str, index: int | None = None) -> None:
        where = "" if index is None else f" (number {index + 1} of the batch)"
        super().__init__(
            f"event {event_id!r}{where} was refused: {reason}. Nothing of its batch was appended."
        )
        self.event_id, self.reason, self.index = event_id, reason, index


class DamagedEntry(StreamError):
    """An entry of the log whose content cannot be trusted or read."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(
            f"the entry at {where} cannot be used: {reason}. It stays in the log; projections list it in "
            "dead:<group>. Find its producer in the audit trail, or restore the partition from a copy if "
            "others are damaged too."
        )
        self.where, self.reason = where, reason


class Unread(StreamError):
    """A sound event that a better build reads: whoever meets it waits there, for that build.

    where: stream/partition/position, as far as the caller knew it.
    """

    def __init__(self, sentence: str, where: str, event_id: str) -> None:
        super().__init__(sentence)
        self.where, self.event_id = where, event_id

    @property
    def position(self) -> str:
        """Of the entry; "" where it is not known."""
        position = self.where.rpartition("/")[2]
        return position if position.replace("-", "").isdecimal() else ""


class UnknownEventVersion(Unread):
    """The log holds a newer version of an event type than this build knows."""

    def __init__(
        self, event_type: str, version: int, known: int, where: str = "", event_id: str = ""
    ) -> None:
        at = f" (event {event_id!r} at {where})" if where else ""
        super().__init__(
            f"cannot decode {event_type!r} version {version}: this build knows up to version {known}{at}. "
            "Deploy the build that wrote it; the events stay in the log until then.",
            where,
            event_id,
        )
        self.event_type, self.version, self.known = event_type, version, known


class UpcastEvent(Protocol):
    """What is named of an event that cannot be upcast."""

    @property
    def event_id(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def version(self) -> int: ...


def _raised_in(error: BaseException) -> str:
    """Where somebody's function raised it; "" for ours."""
    frames = traceback.extract_tb(error.__traceback__)[1:]
    return f", in {frames[-1].name} of {frames[-1].filename}:{frames[-1].lineno}" if frames else ""


class UpcasterFailed(Unread):
    """The upcaster of an event's type raised, or made of the event what its type does not allow."""

    def __init__(self, where: str, event: UpcastEvent, version: int, error: BaseException) -> None:
        """version: of the step that failed; the event's own may be older."""
        self.reason = f"{type(error).__name__}: {text_of(error)}"
        super().__init__(
            f"event {event.event_id!r} at {where or 'an unknown place'}, a {event.type!r} of version "
            f"{event.version}, cannot be upcast from version {version} "
            f"({self.reason[:300]}){_raised_in(error)}. Mend the upcaster and deploy it; the event stays in "
            "the log, and its readers wait there until then.",
            where,
            event.event_id,
        )
        self.event_type, self.version, self.failed = event.type, event.version, version


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
            f"appended, but only {got} of {wanted} replicas confirmed within {timeout_ms} ms. Append the "
            "same events again (they count once) until it holds, or ask for a weaker acknowledgement."
        )
        self.wanted, self.got, self.timeout_ms = wanted, got, timeout_ms


class BacklogFull(StreamError):
    """A partition's slowest group is a whole budget behind, so the log takes no more for now. Nothing is
    lost: append again later.
    """

    def __init__(
        self, where: str, group: str, backlog: tuple[int, int], budget: tuple[int, int], refused: int
    ) -> None:
        """where: stream/partition. backlog, budget: events, bytes. refused: of the call, not in the log."""
        self.stream, _, partition = where.rpartition("/")
        super().__init__(
            f"{refused} events were not appended: the group {group!r} is {backlog[0]:,} events "
            f"({backlog[1]:,} bytes) behind in {where}; the budget is {budget[0]:,} events, {budget[1]:,} "
            "bytes. Start its consumer and append the same events again (they count once). If it is gone for "
            f"good: `aurastream groups forget {group} --stream {self.stream}`."
        )
        self.partition, self.group, self.refused = int(partition), group, refused
        self.events, self.bytes = backlog
        self.budget_events, self.budget_bytes = budget


class NotAnswered(StreamError):
    """The server did not do it in the time there was; it may later, so the same may be put again."""


class ServerAway(NotAnswered):
    """The server did not come back while the process was stopping."""

    def __init__(self, waited_s: float) -> None:
        super().__init__(
            f"the server was away for {waited_s:.1f} s when the process stopped. Nothing is lost: what is "
            "not acknowledged comes again."
        )
        self.waited_s = waited_s


class ServerRefuses(NotAnswered):
    """The server said no for as long as it was waited for: nothing of what was put last was written.

    word: the server's, as OOM; "" where it never came to that. said: its sentence. is_written: of an append,
    False: of the call's events those of ``appended`` are in the log (event ID -> stream/partition/position),
    and no other one.
    """

    is_written = False

    def __init__(self, what: str, word: str, said: str) -> None:
        how = "the server refuses for now" if word else "there was no server"
        super().__init__(f"{what}: {how} ({said}). Nothing of it was written. {REMEDIES.get(word, REMEDY)}")
        self.what, self.word, self.said = what, word, said
        self.appended: dict[str, str] = {}


REMEDY = "Repeat it once the server is well."
REMEDIES = {
    "OOM": "It is full: free memory (`aurastream archive`, then `aurastream trim`) or raise its maxmemory.",
    "MISCONF": "It cannot write to its disk: free space there, or see its log; then repeat it.",
    "NOREPLICAS": "Too few of its replicas are linked (min-replicas-to-write): start one, then repeat it.",
    "READONLY": "It is a replica: name the primary in AURASTREAM_REDIS_URL, or promote this one.",
    "LOADING": "It is loading its data: repeat it in a moment.",
    "BUSY": "A script of somebody's occupies it: see SCRIPT KILL; then repeat it.",
    "CLUSTERDOWN": "Some slots have no primary: bring the node back or fail over to its replica.",
    "MASTERDOWN": "It is a replica without its primary: name the primary, or promote this one.",
}


class UnknownOutcome(NotAnswered):
    """The connection was lost so often that it is not known whether the events are in the log.

    is_written: of an append, None: of the call's events those of ``appended`` are in the log (event ID ->
    stream/partition/position), of those in ``unknown`` (event IDs) it is not known, and no other one is.
    """

    is_written = None

    def __init__(self, what: str, attempts: int) -> None:
        super().__init__(
            f"{what}: no answer in {attempts} attempts, so the outcome is unknown. "
            "Repeat it with the same event IDs once the server answers; what arrived already counts once."
        )
        self.what, self.attempts = what, attempts
        self.appended: dict[str, str] = {}
        self.unknown: frozenset[str] = frozenset()


class KeysLocked(StreamError):
    """The creators' keys are wrapped with a master key that this process does not have."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"the creators' keys on this server are wrapped with a master key, and this process {what}. "
            "Set AURASTREAM_MASTER_KEY to the key of the processes that append; without it no personal "
            "field can be read."
        )


class CreatorUnknown(StreamError):
    """There is nothing of this creator to erase."""

    def __init__(self, creator: str) -> None:
        super().__init__(
            f"no key belongs to the creator {creator!r}: nothing was ever sealed for it, or it is erased "
            "already. Name the creator by the platform's id, as its events had it when they were appended."
        )
        self.creator = creator


class ServerUnfit(StreamError):
    """The server's settings would lose or change data; the process refuses to start."""


class ServerUnreachable(ServerUnfit):
    """The server is away, silent, loading or refuses to speak for now, and was not waited for any longer."""


class StreamUnknown(StreamError):
    """No stream of that name is registered on the server."""

    def __init__(self, stream: str, known: list[str]) -> None:
        choices = ", ".join(known) if known else "none yet"
        super().__init__(
            f"there is no stream {stream!r} on this server (streams: {choices}). Import or append first."
        )
        self.stream, self.known = stream, known


class PartitionMismatch(StreamError):
    """The stream was created with another number of partitions."""

    def __init__(self, stream: str, recorded: int, configured: int) -> None:
        super().__init__(
            f"stream {stream!r} has {recorded} partitions, this process is configured for {configured}. "
            f"Set partitions to {recorded}; to change the number, create a new stream with {configured} "
            "partitions, "
            "append the old stream's events to it (their IDs keep them single) and point the workers there."
        )
        self.stream, self.recorded, self.configured = stream, recorded, configured


class InvariantBroken(StreamError):
    """Something that must never happen did; whoever meets it stops; its events stay in the log, after the
    cursor.
    """


class ArchiveUnusable(StreamError):
    """The place of the archive does not answer as it should."""

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(
            f"the archive at {place} cannot be used ({reason}). See that AURASTREAM_ARCHIVE and "
            "AURASTREAM_ARCHIVE_OPTIONS are right, that the place may be written to, and that what the URL "
            "needs is installed (s3://: pip install 'aurastream[s3]')."
        )
        self.place, self.reason = place, reason


class ArchiveNeeded(StreamError):
    """Entries were trimmed from the log, and this process is not told where their archive is."""

    def __init__(self, where: str, trimmed_to: str, url: str = "") -> None:
        super().__init__(
            f"the log of {where} was trimmed up to {trimmed_to}, and no archive is set: the entries before "
            f"that cannot be read. Set AURASTREAM_ARCHIVE to {url or 'where they were archived'}."
        )
        self.where, self.trimmed_to, self.url = where, trimmed_to, url


class ArchiveDamaged(StreamError):
    """A file of the archive is missing, or is not what was written."""

    def __init__(self, where: str, file: str, reason: str) -> None:
        super().__init__(
            f"{where} cannot be read from {file}: {reason}. `aurastream audit verify` names all that is "
            "wrong; restore the file from a copy."
        )
        self.where, self.file, self.reason = where, file, reason


class RegistryDamaged(StreamError):
    """A stream's row in the registry is none that AuraStream wrote."""

    def __init__(self, stream: str, row: str, reason: str) -> None:
        super().__init__(
            f"the row of stream {stream[:80]!r} in aura:streams cannot be used ({reason}): {row[:200]}. It "
            "was changed by hand or "
            "damaged; restore it from a copy, as its number of partitions decides where every subject is."
        )
        self.stream, self.row = stream, row


class CountsDamaged(StreamError):
    """A cursor or the counts of a partition hold what is no number or no position."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(
            f"the counts of {where} cannot be read: {reason}. They were changed by hand or damaged; restore "
            "the partition from a copy, "
            "or rebuild the view (`aurastream rebuild`) where it is a view's cursor."
        )
        self.where, self.reason = where, reason


class ArchiveUnseen(StreamError):
    """What is to leave the log is in an archive that this process cannot look at."""

    def __init__(self, stream: str) -> None:
        super().__init__(
            f"nothing of {stream!r} was trimmed: the archive is to be the only one to have it, and is "
            "looked at before. Set AURASTREAM_ARCHIVE to where it is."
        )
        self.stream = stream


class ArchiveRefused(StreamError):
    """The log and the archive do not belong together as they are; nothing was archived or removed."""
