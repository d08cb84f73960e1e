"""
The log: event types, append, read, partitions, groups; and what becomes of it: archive/, history.py,
retention/, personal/, schema/. Imports nothing of ours.

Promise: an event ID is in the live log once, however often it is appended; an append is whole or absent; what
was read is what was written, or a DamagedEntry. What leaves the log is in the archive, and is read from there
as if it had not left.

Decision (2026-11): entries have two fields, ``event`` (JSON) and ``crc32``. Refused: the event ID as a field
of its own, which would cost 30 bytes an event only to be looked at when an ID is appended twice, where it is
found in the JSON.
Decision (2026-11): xxhash for partition and digest (0.1 us; hashlib's fastest 0.6 us), zlib's CRC-32 for the
checksum, as every language has it.
"""

from aurastream.streams.cloudevents import from_cloudevent, to_cloudevent
from aurastream.streams.codec import EVENT_BYTES_MAX, Codec
from aurastream.streams.connection import Server
from aurastream.streams.errors import (
    BacklogFull,
    CreatorUnknown,
    DamagedEntry,
    InvalidEvent,
    InvariantBroken,
    KeysLocked,
    NotReplicated,
    PartitionMismatch,
    ServerUnfit,
    StreamError,
    StreamUnknown,
    UnknownEventVersion,
    UnknownOutcome,
    VersionConflict,
)
from aurastream.streams.events import (
    BUILT_IN,
    ClipViewsObserved,
    Count,
    CreatorErased,
    EffectDiscarded,
    EffectParked,
    EffectRetried,
    Event,
    GenerationRetired,
    GroupForgotten,
    ImportFinished,
    ImportRowRejected,
    Instant,
    LogArchived,
    LogReplayed,
    LogTrimmed,
    PersonalText,
    RebuildCompared,
    RebuildStarted,
    ShortText,
    SubjectRebuilt,
    ViewRolledBack,
    ViewSwapped,
)
from aurastream.streams.history import History
from aurastream.streams.ids import derived_id, named_id, observed_id
from aurastream.streams.registry import StreamFacts, list_streams, open_stream
from aurastream.streams.settings import Ack, Pressure, Settings
from aurastream.streams.stream import BATCH_MAX, Appended, Entry, Outcome, Stream
from aurastream.streams.system import OPERATIONS, operator

__all__ = [
    "BATCH_MAX",
    "BUILT_IN",
    "EVENT_BYTES_MAX",
    "OPERATIONS",
    "Ack",
    "Appended",
    "BacklogFull",
    "ClipViewsObserved",
    "Codec",
    "Count",
    "CreatorErased",
    "CreatorUnknown",
    "DamagedEntry",
    "EffectDiscarded",
    "EffectParked",
    "EffectRetried",
    "Entry",
    "Event",
    "GenerationRetired",
    "GroupForgotten",
    "History",
    "ImportFinished",
    "ImportRowRejected",
    "Instant",
    "InvalidEvent",
    "InvariantBroken",
    "KeysLocked",
    "LogArchived",
    "LogReplayed",
    "LogTrimmed",
    "NotReplicated",
    "Outcome",
    "PartitionMismatch",
    "PersonalText",
    "Pressure",
    "RebuildCompared",
    "RebuildStarted",
    "Server",
    "ServerUnfit",
    "Settings",
    "ShortText",
    "Stream",
    "StreamError",
    "StreamFacts",
    "StreamUnknown",
    "SubjectRebuilt",
    "UnknownEventVersion",
    "UnknownOutcome",
    "VersionConflict",
    "ViewRolledBack",
    "ViewSwapped",
    "derived_id",
    "from_cloudevent",
    "list_streams",
    "named_id",
    "observed_id",
    "open_stream",
    "operator",
    "to_cloudevent",
]
