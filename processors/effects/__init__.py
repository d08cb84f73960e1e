"""
Processors with effects: handlers that do work outside and append derived events.

Promise: derived events are in the log once. A handler begins at most attempts_max times, kills of its process
included, and then its event is parked; later events of its subject wait behind it in order, other subjects
flow. Every parking, retry and discard is an event of the stream "operations". To the outside delivery is at
least once: hand out the idempotency key.

Decision (2026-11): a dead letter is kept by reference (the entry stays in the log) with its line in one
sorted set, so that a parked
subject costs a row per event. Refused: a stream of dead letters, which loses who waits for whom; stopping the
partition.
Decision (2026-11): an audit event goes through an outbox in the partition's slot, written by the script that
makes the change, so that neither is there without the other. Refused: appending before or after the change,
which lies when the process ends in between.
Decision (2026-11): the entries a transport hands over are a hint of how far to read; the runner reads the log
itself, since handlers cost milliseconds and a second read microseconds. Trusting the hand-over would need its
contiguity to be proven.
"""

from aurastream.processors.effects.dead import (
    DeadLetter,
    DeadLetterBehind,
    DeadLetterBusy,
    DeadLetterUnknown,
    discard,
    list_letters,
    retry,
)
from aurastream.processors.effects.lane import EffectLane
from aurastream.processors.effects.processor import Attempt, GiveUp, Processor, processors_of
from aurastream.processors.effects.runner import Asker, LaneRunner
from aurastream.processors.effects.worker import EffectWorker
from aurastream.streams import OPERATIONS, operator

__all__ = [
    "OPERATIONS",
    "Asker",
    "Attempt",
    "DeadLetter",
    "DeadLetterBehind",
    "DeadLetterBusy",
    "DeadLetterUnknown",
    "EffectLane",
    "EffectWorker",
    "GiveUp",
    "LaneRunner",
    "Processor",
    "discard",
    "list_letters",
    "operator",
    "processors_of",
    "retry",
]
