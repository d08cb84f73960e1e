"""What became of an event that a processor gave up on."""

from __future__ import annotations

from aurastream.streams.events.envelope import Count, Event, ShortText


class EffectParked(Event, frozen=True, kw_only=True, tag="effect.parked"):
    """A processor gave up on an event (causation_id) for now; the later events of its subject wait behind it.

    The subject is the parked event's, or the processor's name where that cannot be read. source: the worker.
    place: of the parked event, stream/partition/position. attempts: how often its handler was begun.
    """

    processor: ShortText
    place: ShortText
    attempts: Count
    reason: ShortText


class EffectRetried(Event, frozen=True, kw_only=True, tag="effect.retried"):
    """A person let a parked event run again, with what waits behind it. Subject and place as in
    EffectParked; source: who.
    """

    processor: ShortText
    place: ShortText
    why: ShortText = ""


class EffectDiscarded(Event, frozen=True, kw_only=True, tag="effect.discarded"):
    """A person decided that an event gets no effect. As EffectRetried; reason: why it had been parked, "" for
    one that waited.
    """

    processor: ShortText
    place: ShortText
    why: ShortText = ""
    reason: ShortText = ""
