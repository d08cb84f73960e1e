"""
Processors with effects: handlers that do work outside and append derived events.

    processor   what a person writes         letters, items, steps, window   what a lane knows, pure
    lane, script, resumption   a processor's way through one partition, as generators
    handler, lines, pauses, runner   a lane in an event loop     consumer   all lanes, without a transport
    dead        dead letters as a person sees them

Promise: derived events are in the log once. A handler begins at most attempts_max times, kills of its process
included, and then its event is parked; later events of its subject wait behind it in order, other subjects
flow. Every parking, retry and discard is an event of the stream "operations". To the outside delivery is at
least once: hand out the idempotency key.

Decision (2026-11): a dead letter is kept by reference (the entry stays in the log) with its line in one
sorted set, so that a parked subject costs a row per event. Refused: a stream of dead letters, which loses who
waits for whom; stopping the partition.
Decision (2026-11): an audit event goes through an outbox in the partition's slot, written by the script that
makes the change, so that neither is there without the other. Refused: appending before or after the change,
which lies when the process ends in between.
Decision (2026-11): a lane reads the log itself, since handlers cost milliseconds and a second read
microseconds; a batch that a transport hands over only wakes it. Trusting the hand-over would need its
contiguity to be proven.
"""

from aurastream.processors.effects.consumer import EffectConsumer, EffectStreams
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
from aurastream.processors.effects.pauses import Pauses
from aurastream.processors.effects.processor import Attempt, GiveUp, Processor, processors_of
from aurastream.processors.effects.runner import LaneRunner
from aurastream.streams import OPERATIONS, operator

__all__ = [
    "ASKS_MAX",
    "OPERATIONS",
    "Attempt",
    "DeadLetter",
    "DeadLetterBehind",
    "DeadLetterBusy",
    "DeadLetterUnknown",
    "EffectConsumer",
    "EffectLane",
    "EffectStreams",
    "GiveUp",
    "Isolation",
    "LaneOptions",
    "LaneRunner",
    "LaneStreams",
    "LetterPlace",
    "Pauses",
    "Processor",
    "discard",
    "list_letters",
    "operator",
    "processors_of",
    "retry",
]
