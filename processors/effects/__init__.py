"""
Processors with effects: handlers that do work outside and append derived events.

    processor   what a person writes         letters, items, steps, window   what a lane knows, pure
    meeting, acceptance        what is recorded to be handled since when, and a person's word about it
    lane, script, resumption   a processor's way through one partition, as generators
    handler, threads, watchdog       one call of a handler, and who hangs or blocks
    lines, pauses, runner            a lane in an event loop; all of them are the host's
    dead, bulk  dead letters as a person sees them, one or many

Promise: derived events are in the log once. A handler begins at most attempts_max times, and does not end at
most kills_max times, and then its event is parked; later events of its subject wait behind it in order, other
subjects flow. What we cut off ourselves (a stop, a lease that was lost) was no attempt. Every parking, retry
and discard is an event of the stream "operations". To the outside delivery is at least once: hand out the
idempotency key.

Decision (2026-11): a dead letter is kept by reference (the entry stays in the log) with its line in one
sorted set, so that a parked subject costs a row per event. Refused: a stream of dead letters, which loses who
waits for whom; stopping the partition.
Decision (2026-11): which attempts have not ended is kept beside their count, by tokens that name host, epoch
and number. So an attempt can be taken back by whoever made it, at any time and once, without touching
another's; a repeated question counts none; only what another process left open is a suspect. Refused:
comparing epochs, by which an owner that lost its lease could not take back what it cut off for that reason;
counting the open ones off when a lane is taken over, which would forget what kills its process.
Decision (2026-11): an audit event goes through an outbox in the partition's slot, written by the script that
makes the change, so that neither is there without the other. Refused: appending before or after the change,
which lies when the process ends in between.
Decision (2026-11): a lane reads the log itself, since handlers cost milliseconds and a second read
microseconds; a batch that a transport hands over only wakes it. Trusting the hand-over would need its
contiguity to be proven.
"""

from aurastream.processors.effects.acceptance import Acceptance, Accepted, Since
from aurastream.processors.effects.bulk import (
    BulkDecision,
    BulkOutcome,
    LetterFilter,
    discard_all,
    outcome_of,
    retry_all,
)
from aurastream.processors.effects.dead import (
    DeadLetter,
    DeadLetterBehind,
    DeadLetterBusy,
    DeadLetterUnknown,
    discard,
    list_letters,
    retry,
)
from aurastream.processors.effects.handler import Isolation
from aurastream.processors.effects.lane import EffectLane, LaneOptions, LaneStreams
from aurastream.processors.effects.letters import LetterPlace
from aurastream.processors.effects.lines import ASKS_MAX
from aurastream.processors.effects.meeting import (
    Met,
    ProcessorRedefined,
    field_of_meeting,
    instant_of,
    introduce,
    processor_standing,
    read_meetings,
)
from aurastream.processors.effects.pauses import Pauses
from aurastream.processors.effects.processor import Attempt, GiveUp, Processor, processors_of
from aurastream.processors.effects.runner import LaneRunner
from aurastream.processors.effects.streams import EffectStreams
from aurastream.processors.effects.watchdog import Blocked, HandlerCall, Watchdog
from aurastream.streams import OPERATIONS, operator

__all__ = [
    "ASKS_MAX",
    "OPERATIONS",
    "Acceptance",
    "Accepted",
    "Attempt",
    "Blocked",
    "BulkDecision",
    "BulkOutcome",
    "DeadLetter",
    "DeadLetterBehind",
    "DeadLetterBusy",
    "DeadLetterUnknown",
    "EffectLane",
    "EffectStreams",
    "GiveUp",
    "HandlerCall",
    "Isolation",
    "LaneOptions",
    "LaneRunner",
    "LaneStreams",
    "LetterFilter",
    "LetterPlace",
    "Met",
    "Pauses",
    "Processor",
    "ProcessorRedefined",
    "Since",
    "Watchdog",
    "discard",
    "discard_all",
    "field_of_meeting",
    "instant_of",
    "introduce",
    "list_letters",
    "operator",
    "outcome_of",
    "processor_standing",
    "processors_of",
    "read_meetings",
    "retry",
    "retry_all",
]
