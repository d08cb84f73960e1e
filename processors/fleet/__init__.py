"""
The fleet's state, judged from the log.

    facts, partition.lua   where every group stands in a partition
    reading                all of it at once          judging, reasons   what it means, pure
    fleet                  the answer, as structs     watch              what became of lanes, logged once

Promise: every lane that nobody runs, every lane that is stuck, with its reason, and every event that was set
aside is named within 5 s of the fact, whether or not its code is installed where one looks from; and what
healed is green at the next look, without anybody's doing.
"""

from aurastream.processors.fleet.facts import SetAside
from aurastream.processors.fleet.fleet import (
    Colour,
    Fleet,
    FleetHost,
    FleetLane,
    FleetReason,
    GroupKind,
    LaneState,
    LaneTrouble,
    instant,
    ranges,
    shown_lanes,
)
from aurastream.processors.fleet.judging import FleetFacts, judged
from aurastream.processors.fleet.reading import FleetReader, LaneLook
from aurastream.processors.fleet.reasons import unreachable, with_lanes
from aurastream.processors.fleet.watch import FleetWatch, Line

__all__ = [
    "Colour",
    "Fleet",
    "FleetFacts",
    "FleetHost",
    "FleetLane",
    "FleetReader",
    "FleetReason",
    "FleetWatch",
    "GroupKind",
    "LaneLook",
    "LaneState",
    "LaneTrouble",
    "Line",
    "SetAside",
    "instant",
    "judged",
    "ranges",
    "shown_lanes",
    "unreachable",
    "with_lanes",
]
