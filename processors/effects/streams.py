"""The streams of a processor's lanes: what it reads, where its derived events go, and the audit trail."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from aurastream.processors.effects.lane import LaneStreams
from aurastream.processors.effects.processor import Processor
from aurastream.streams import OPERATIONS, Stream


class EffectStreams(msgspec.Struct, frozen=True):
    """opened: one by name, created where it is new."""

    opened: Callable[[str], Stream]

    def of(self, processor: Processor, source: Stream) -> LaneStreams:
        """Those of a processor's lane."""
        into = source if processor.into is None else self.opened(processor.into)
        return LaneStreams(source, into, self.opened(OPERATIONS))
