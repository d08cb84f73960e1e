"""
What a person writes: a handler that does work outside, and the events that say what came of it.

    class Thumbnails(Processor):
        name = "thumbnails"
        events = (ClipViewsObserved,)
        into = "assets"

        async def handle(self, event, attempt):
            url = await storage.make(event.subject, key=attempt.idempotency_key)
            return [attempt.derive(ThumbnailMade, url=url)]

Delivery to the outside is at least once: a process may end between the work and its record. So hand the
idempotency key to whoever does the work; it is the same at every attempt. The derived events are in the log
once, whatever happens: their IDs come from the source event, the processor and their place in what was
returned. Return the same events in the same order at every attempt.

A handler gets personal fields opened; the creator is a pseudonym, and where that was erased the fields are
"". What a handler says of such an event (the text of an exception) is sealed like the fields before it is
kept, and shown opened by `aurastream dead`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping
from datetime import datetime
from typing import Any, ClassVar, Literal

import msgspec

from aurastream.processors import Installed, ProcessorError, Worker
from aurastream.streams import Codec, Event, Stream, Upcaster, checked_name, named_id

TIMEOUT_MAX_S, BACKOFF_MAX_S, ATTEMPTS_MOST = 3_600.0, 3_600.0, 100
BOUNDS = {
    "attempts_max": (1, ATTEMPTS_MOST),
    "kills_max": (1, ATTEMPTS_MOST),
    "parallel": (1, 1_000),
    "first_s": (0, BACKOFF_MAX_S),
    "factor": (1, 100),
    "max_s": (0, BACKOFF_MAX_S),
    "jitter": (0, 1),
    "timeout_s": (0.001, TIMEOUT_MAX_S),
}  # of a processor's attributes: the least and the most
PENDING = "pending"  # the event_id of a derived event until it gets its own


class GiveUp(Exception):
    """Raised by a handler: no further attempt can help. The event is parked with this reason."""


class Attempt(msgspec.Struct, frozen=True):
    """One call of a handler. number: from 1. idempotency_key: of this event and processor, the same at every
    attempt.

    started_at: the host's clock.
    """

    source: Event
    number: int
    attempts_max: int
    idempotency_key: str
    stream: str
    partition: int
    position: str
    started_at: datetime

    @property
    def is_last(self) -> bool:
        """Whether the event is parked if this one fails."""
        return self.number >= self.attempts_max

    def derive(self, kind: type[Event], **fields: Any) -> Event:
        """A derived event: of the source's subject and of now, unless `fields` say otherwise. The framework
        gives it its ID.

        Where `kind` has personal fields, it is of the source's creator too, so that they are sealed under the
        same key.
        """
        made = {"event_id": PENDING, "subject": self.source.subject, "occurred_at": self.started_at, **fields}
        if kind.personal and self.source.personal:
            made.setdefault("creator", self.source.creator)  # type: ignore[attr-defined]
        return kind(**made)


Derived = Iterable[Event] | None


class Processor(Worker):
    """One handler of events. Subclass it; see the module's example.

    name: 1 to 64 of a-z 0-9 _ . -, also its group. events: the types it handles. streams: those it reads;
    None reads all. into: the stream its derived events go to, created where it is new; None: the source's.
    attempts_max: how often a handler is begun before its event is parked. kills_max: how often it may be
    begun and not end, since its process did. What a host cuts off, as it stops or gives a lane away, is none.
    first_s, factor, max_s, jitter: pause after the n-th failure: first_s * factor**(n-1), at most max_s, less
    a random part of up to `jitter` of it. As they are, an event is parked after ten minutes of failures
    (seven to fourteen), so that an outage of the outside of some minutes parks nothing.
    timeout_s: of one call; a sync handler's thread cannot be stopped, and goes on unheard.
    upcasters: of event types that do not declare their own (``Event.upcasters``), by (tag, version).
    start: where it begins in a stream that it has not met. "end": with what is appended after the fleet first
    ran it, and with the whole of streams made later; "beginning": with the oldest entry of the log; or with
    what was appended since an instant. Recorded at the first meeting; from then on the record counts.
    parallel: subjects of a partition handled at a time. is_silent_in_replay: a replay leaves its handler out.
    """

    name: ClassVar[str]
    events: ClassVar[tuple[type[Event], ...]] = ()
    streams: ClassVar[tuple[str, ...] | None] = None
    into: ClassVar[str | None] = None
    attempts_max: ClassVar[int] = 15
    kills_max: ClassVar[int] = 5
    first_s: ClassVar[float] = 0.5
    factor: ClassVar[float] = 2.0
    max_s: ClassVar[float] = 120.0
    jitter: ClassVar[float] = 0.5
    timeout_s: ClassVar[float] = 30.0
    parallel: ClassVar[int] = 16
    is_silent_in_replay: ClassVar[bool] = True
    start: ClassVar[Literal["end", "beginning"] | datetime] = "end"
    upcasters: ClassVar[Mapping[tuple[str, int], Upcaster]] = {}

    def handle(self, event: Any, attempt: Attempt) -> Derived | Awaitable[Derived]:
        """Do the work; a plain `def` runs in a thread. Any exception is a failed attempt."""
        raise NotImplementedError(f"{type(self).__name__} has no handle")

    def reads(self, stream: str) -> bool:
        """Whether it handles events of this stream."""
        return self.streams is None or stream in self.streams

    def handles(self, stream: Stream) -> bool:
        """Whether it works on this stream: it takes it, and is not silent there as on a replay's."""
        return self.takes(stream) and not (stream.is_replay and self.is_silent_in_replay)

    def takes(self, stream: Stream) -> bool:
        """Whether it handles events of this stream: of a topic of Faust apps only where it is named, by these
        ``streams`` or by who opened it (Stream.as_events).
        """
        return self.reads(stream.name) and (self.streams is not None or not stream.is_topic)

    def codec(self) -> Codec:
        """Decodes the events it handles."""
        return Codec(self.events, self.upcasters)

    def pause_s(self, attempt: int, chance: float) -> float:
        """How long to wait after this attempt failed. chance: 0 to 1, random."""
        full = min(self.max_s, self.first_s * self.factor ** (attempt - 1))
        return full * (1 - self.jitter * chance)

    def key_of(self, event_id: str) -> str:
        """The idempotency key of an event."""
        return named_id(event_id, self.name)

    def check(self) -> None:
        """Raise ProcessorError when the definition cannot work, naming what to mend."""
        checked_name("processor", self.name)
        if self.into is not None:
            checked_name("stream", self.into)
        if not self.events:
            raise ProcessorError(
                f"the processor {self.name!r} handles no events. Name their types in `events`."
            )
        self._check_start()
        for name, (least, most) in BOUNDS.items():
            value = getattr(self, name)
            if not least <= value <= most:
                raise ProcessorError(
                    f"{name} of the processor {self.name!r} is {value}; it must be {least} to {most}."
                )

    def _check_start(self) -> None:
        start: object = self.start
        if start in ("end", "beginning") or (isinstance(start, datetime) and start.tzinfo is not None):
            return
        raise ProcessorError(
            f"start of the processor {self.name!r} is {start!r}; it must be 'end', 'beginning' or a datetime "
            "with a zone."
        )


def processors_of(installed: Installed) -> dict[str, Processor]:
    """The installed processors, by name."""
    return {name: worker for name, worker in installed.processors.items() if isinstance(worker, Processor)}
