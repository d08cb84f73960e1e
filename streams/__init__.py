"""
The log. Imports nothing of ours.

    positions  drive wires async_wires passing   places; questions to the server and who puts them
    events/ codec entries admission              what a fact looks like, its bytes, and what may enter
    stream appending pressure registry system    append and read; which streams there are
    groups leases history                        consuming, owning, the whole past
    archive/ retention/ personal/ schema/        what becomes of it

Promise: an event ID is in the live log once, however often it is appended; an append is whole or absent; what
was read is what was written, or a DamagedEntry. What leaves the log is in the archive, and is read from there
as if it had not left.

Decision (2026-11): entries have two fields, ``event`` (JSON) and ``crc32``. Refused: the event ID as a field
of its own, which would cost 30 bytes an event only to be looked at when an ID is appended twice, where it is
found in the JSON.
Decision (2026-11): xxhash for partition and digest (0.1 us; hashlib's fastest 0.6 us), zlib's CRC-32 for the
checksum, as every language has it.
"""

from aurastream.streams.appending import AHEAD_MAX, BATCH_MAX, Appended, Outcome
from aurastream.streams.async_wire import AsyncWire
from aurastream.streams.async_wires import AsyncWires
from aurastream.streams.cloudevents import PLACE, from_cloudevent, is_cloudevent, to_cloudevent
from aurastream.streams.codec import Codec, Upcaster
from aurastream.streams.connection import Server
from aurastream.streams.drive import (
    LOST,
    PAUSE_FIRST_S,
    PAUSE_MAX_S,
    Ask,
    Asking,
    Backoff,
    Command,
    Reply,
    adrive,
    drive,
    is_passing,
    relay,
    retried,
    sound,
)
from aurastream.streams.embedded import EmbeddedServer, EmbeddedServerError, home_directory, serve
from aurastream.streams.entities import CHUNK, PLACE_BYTES, Places
from aurastream.streams.entries import (
    EVENT_BYTES_MAX,
    UNDECODABLE,
    Envelope,
    RawEntry,
    check_identifiers,
    entries_json,
    entry_json,
    read_envelope,
    read_envelopes,
)
from aurastream.streams.errors import (
    ArchiveDamaged,
    ArchiveNeeded,
    ArchiveRefused,
    ArchiveUnseen,
    ArchiveUnusable,
    BacklogFull,
    CreatorUnknown,
    DamagedEntry,
    InvalidEvent,
    InvariantBroken,
    KeysLocked,
    NotReplicated,
    PartitionMismatch,
    ServerAway,
    ServerUnfit,
    StreamError,
    StreamUnknown,
    UnknownEventVersion,
    UnknownOutcome,
    VersionConflict,
)
from aurastream.streams.events import (
    BUILT_IN,
    COUNT_MAX,
    IDENTIFIER,
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
from aurastream.streams.facts import (
    HERE,
    IMPORTS,
    OPERATIONS,
    REPLAY_PREFIX,
    StreamFacts,
    is_audit,
    is_system,
    operator,
)
from aurastream.streams.glance import occurred_at_of, subject_of
from aurastream.streams.groups import Cursor, Lag, cursor_of, ensure, lag_of, read_new, seek, wake_up
from aurastream.streams.history import History, Span
from aurastream.streams.ids import derived_id, named_id, observed_id
from aurastream.streams.index import (
    DIGEST_BYTES,
    collided_field_of,
    field_of,
    pack_position,
    pack_positions,
    unpack_position,
)
from aurastream.streams.instant import at_once
from aurastream.streams.keyring import Keyring, is_name
from aurastream.streams.keys import (
    CREATOR_KEYS,
    CREATORS,
    ERASURES,
    NAME,
    REPLAYS,
    VIEWS,
    Keys,
    checked_name,
    generation_group,
)
from aurastream.streams.late import Logger, configure_with, late
from aurastream.streams.leases import LEASE_MS, Claim, Leases, ask_lease, host_name
from aurastream.streams.members import HostCard, Member, Trouble, old_members, read_members
from aurastream.streams.news import News
from aurastream.streams.positions import END, EPOCH, MICROSECOND, START, Position, last_of, microseconds
from aurastream.streams.pressure import Backlog, backlogs, forget, join
from aurastream.streams.registry import event_streams, list_streams, open_stream
from aurastream.streams.sealing import is_reserved
from aurastream.streams.settings import Ack, Pressure, Settings
from aurastream.streams.soundness import unsound
from aurastream.streams.spare import beyond, put_beyond
from aurastream.streams.stream import READ_MAX, Entry, Stream
from aurastream.streams.wire import Script, Wire
from aurastream.streams.wires import Wires

__all__ = [
    "AHEAD_MAX",
    "BATCH_MAX",
    "BUILT_IN",
    "CHUNK",
    "COUNT_MAX",
    "CREATORS",
    "CREATOR_KEYS",
    "DIGEST_BYTES",
    "END",
    "EPOCH",
    "ERASURES",
    "EVENT_BYTES_MAX",
    "HERE",
    "IDENTIFIER",
    "IMPORTS",
    "LEASE_MS",
    "LOST",
    "MICROSECOND",
    "NAME",
    "OPERATIONS",
    "PAUSE_FIRST_S",
    "PAUSE_MAX_S",
    "PLACE",
    "PLACE_BYTES",
    "READ_MAX",
    "REPLAYS",
    "REPLAY_PREFIX",
    "START",
    "UNDECODABLE",
    "VIEWS",
    "Ack",
    "Appended",
    "ArchiveDamaged",
    "ArchiveNeeded",
    "ArchiveRefused",
    "ArchiveUnseen",
    "ArchiveUnusable",
    "Ask",
    "Asking",
    "AsyncWire",
    "AsyncWires",
    "Backlog",
    "BacklogFull",
    "Backoff",
    "Claim",
    "ClipViewsObserved",
    "Codec",
    "Command",
    "Count",
    "CreatorErased",
    "CreatorUnknown",
    "Cursor",
    "DamagedEntry",
    "EffectDiscarded",
    "EffectParked",
    "EffectRetried",
    "EmbeddedServer",
    "EmbeddedServerError",
    "Entry",
    "Envelope",
    "Event",
    "GenerationRetired",
    "GroupForgotten",
    "History",
    "HostCard",
    "ImportFinished",
    "ImportRowRejected",
    "Instant",
    "InvalidEvent",
    "InvariantBroken",
    "Keyring",
    "Keys",
    "KeysLocked",
    "Lag",
    "Leases",
    "LogArchived",
    "LogReplayed",
    "LogTrimmed",
    "Logger",
    "Member",
    "News",
    "NotReplicated",
    "Outcome",
    "PartitionMismatch",
    "PersonalText",
    "Places",
    "Position",
    "Pressure",
    "RawEntry",
    "RebuildCompared",
    "RebuildStarted",
    "Reply",
    "Script",
    "Server",
    "ServerAway",
    "ServerUnfit",
    "Settings",
    "ShortText",
    "Span",
    "Stream",
    "StreamError",
    "StreamFacts",
    "StreamUnknown",
    "SubjectRebuilt",
    "Trouble",
    "UnknownEventVersion",
    "UnknownOutcome",
    "Upcaster",
    "VersionConflict",
    "ViewRolledBack",
    "ViewSwapped",
    "Wire",
    "Wires",
    "adrive",
    "ask_lease",
    "at_once",
    "backlogs",
    "beyond",
    "check_identifiers",
    "checked_name",
    "collided_field_of",
    "configure_with",
    "cursor_of",
    "derived_id",
    "drive",
    "ensure",
    "entries_json",
    "entry_json",
    "event_streams",
    "field_of",
    "forget",
    "from_cloudevent",
    "generation_group",
    "home_directory",
    "host_name",
    "is_audit",
    "is_cloudevent",
    "is_name",
    "is_passing",
    "is_reserved",
    "is_system",
    "join",
    "lag_of",
    "last_of",
    "late",
    "list_streams",
    "microseconds",
    "named_id",
    "observed_id",
    "occurred_at_of",
    "old_members",
    "open_stream",
    "operator",
    "pack_position",
    "pack_positions",
    "put_beyond",
    "read_envelope",
    "read_envelopes",
    "read_members",
    "read_new",
    "relay",
    "retried",
    "seek",
    "serve",
    "sound",
    "subject_of",
    "to_cloudevent",
    "unpack_position",
    "unsound",
    "wake_up",
]
