"""
What a host can run: of every stream, the lanes of which groups, and what it cannot run, and why.

    streams there are x views' generations of our definitions and processors -> claims
    a fresh view: its definition is claimed first (engine/generations.py)
    a view that another definition folded, a processor that its record does not fit or beside hosts of an
        older scheme -> a note, no claim

Asked from the thread that keeps the leases; seen anew every LOOK_EVERY_S, in a thread of its own.
What it opens (streams, and those that processors append to) is ready when a lane is made of a claim.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

from redis.exceptions import RedisError, ResponseError

from aurastream.processors import ProcessorError
from aurastream.processors.effects import (
    OPERATIONS,
    EffectStreams,
    LaneStreams,
    Met,
    Processor,
    introduce,
    processor_standing,
    read_meetings,
)
from aurastream.processors.host.sources import Sources
from aurastream.projections import Projection, ProjectionError
from aurastream.projections.engine import (
    NEVER_REBUILT,
    Record,
    State,
    as_recorded,
    claim_definition,
    field_of,
    may_go_on,
    read_records,
    unlike,
)
from aurastream.streams import (
    Claim,
    HostCard,
    Logger,
    Server,
    Stream,
    StreamError,
    generation_group,
    is_passing,
    list_streams,
    old_members,
)

LOOK_EVERY_S = 1.0
NOTE_MAX = 500  # characters
OLD_GROUP = "aurastream"  # the one lease group of all hosts of builds before lanes had leases of their own
LEADER = Claim("@leader", OPERATIONS, 0)  # whose holder is Faust's leader

log = Logger("aurastream.host")


class HostWork(NamedTuple):
    """What a host was told to run. streams: by name; empty for all."""

    projections: list[Projection[Any]]
    processors: list[Processor]
    streams: tuple[str, ...] = ()


class ViewJob(NamedTuple):
    """Lanes of a view's generation."""

    projection: Projection[Any]
    generation: int
    stream: Stream


class EffectJob(NamedTuple):
    """Lanes of a processor."""

    processor: Processor
    streams: LaneStreams


Job: TypeAlias = ViewJob | EffectJob


class Roster:
    """See the module. cards: of the hosts that live, by name, asked when a definition may be claimed anew."""

    def __init__(self, server: Server, sources: Sources, work: HostWork) -> None:
        self.work, self._server, self._sources = work, server, sources
        self.cards: Callable[[], Mapping[str, HostCard]] = dict
        self.notes: tuple[str, ...] = ()
        self.waiting: list[Claim] = []  # until hosts of the older scheme are gone
        self.refused: tuple[str, ...] = ()  # those of them that a person must decide about
        self._unrun: list[str] = []  # views that no living host can run
        self._unlike: set[str] = set()
        self._met: Mapping[str, Met] = {}
        self._has_introduced = False
        self.records: Mapping[str, Record] = {}
        self._jobs: dict[tuple[str, str], Job] = {}
        self._claims: list[Claim] = []
        self._looked_at = 0.0
        self._looking, self._is_looking = threading.Lock(), False
        self.is_over = False  # the host stops: a look that fails now says nothing
        self._effect_streams = EffectStreams(sources.opened)

    def claims(self) -> list[Claim]:
        """Every lane that this host can run. Begins a look at the server where the last was a while ago; if
        that fails (a row changed by hand, a server that refuses), what was seen before goes on.
        """
        if not self._looked_at:
            self.look()
        elif time.monotonic() >= self._looked_at + LOOK_EVERY_S and not self._is_looking:
            self._is_looking = True
            threading.Thread(target=self._look_again, name="aurastream-roster", daemon=True).start()
        return self._claims

    def _look_again(self) -> None:
        """In a thread of its own: many streams that are new, or a slow network, take longer than a lease."""
        try:
            self.look()
        except Exception as error:  # a plug-in's own too: a look that ends in silence would never show
            if not isinstance(error, RedisError | StreamError | ProjectionError | OSError):
                log.exception("look_failed")
            if not self.is_over:
                self._say([*self._known_notes(), f"what there is cannot be seen now: {error}"[:NOTE_MAX]])
        finally:
            self._is_looking = False

    def _known_notes(self) -> list[str]:
        return [note for note in self.notes if not note.startswith("what there is cannot be seen now")]

    def job(self, claim: Claim) -> Job | None:
        """What the lane is of; None where it can be run no more."""
        return self._jobs.get(claim.lanes)

    @property
    def jobs(self) -> dict[tuple[str, str], Job]:
        """All of them, by group and stream."""
        return dict(self._jobs)

    def look(self) -> None:
        """See what there is. Raises the server's errors; then what was seen before stands."""
        with self._looking:
            self._look()

    def _look(self) -> None:
        self.records = read_records(self._server)
        jobs: dict[tuple[str, str], Job] = {}
        notes: list[str] = []
        refused: list[str] = []
        self._unrun = []
        old, why = self._old_hosts(), self._meet()
        refused += [why] if why else []
        handling = [] if old or why else self.work.processors
        waiting: list[Claim] = []
        if old and self.work.processors:
            notes.append(f"processors wait: {old} hosts of a build before lanes had leases are still running")
        for name in self._streams_meant():
            stream = self._look_at(name, jobs, notes)
            if stream is not None:
                refused += self._look_at_processors(stream, handling, jobs)
                waiting += [claim for each in self.work.processors if old for claim in _lanes(each, stream)]
        self._say([*notes, *refused])
        self.refused = (*self._unrun, *refused)
        self._jobs, self.waiting = jobs, waiting
        self._claims = [LEADER] if self.work.projections or self.work.processors else []
        for (group, name), job in jobs.items():
            stream = job.stream if isinstance(job, ViewJob) else job.streams.source
            self._claims += [Claim(group, name, partition) for partition in range(stream.partitions)]
        self._looked_at = time.monotonic()

    def _streams_meant(self) -> list[str]:
        """Those named; or all streams of events, and the topics of Faust apps that a worker names."""
        there = list_streams(self._server)
        if self.work.streams:
            return [name for name in there if name in self.work.streams]
        named = {name for projection in self.work.projections for name in projection.streams or ()}
        named |= {name for processor in self.work.processors for name in processor.streams or ()}
        return [name for name, facts in there.items() if name in named or not facts.is_topic]

    def _meet(self) -> str:
        """What processors are recorded to handle; that the fleet has ours. Returns why none can be run."""
        if not self.work.processors:
            return ""
        try:
            if not self._has_introduced:
                introduce(self._server, self.work.processors)
                self._has_introduced = True
            self._met = read_meetings(self._server)
        except ResponseError as error:
            if is_passing(error) and self._met:  # those that are known go on
                return ""
            return f"the records of processors: {error}"[:NOTE_MAX]
        return ""

    def _look_at(self, name: str, jobs: dict[tuple[str, str], Job], notes: list[str]) -> Stream | None:
        """The lanes of its views; the stream, where it can be read."""
        try:
            stream = self._sources.opened(name)
        except StreamError as error:
            notes.append(f"{name}: {error}")
            return None
        if name in self.work.streams:
            stream.as_events()
        for projection in self.work.projections:
            if projection.takes(stream):
                try:
                    self._look_at_view(stream, projection, jobs, notes)
                except (ResponseError, StreamError, ProjectionError) as error:  # the others go on
                    notes.append(f"the view {projection.name} of {name}: {error}"[:NOTE_MAX])
        return stream

    def _look_at_processors(
        self, stream: Stream, processors: list[Processor], jobs: dict[tuple[str, str], Job]
    ) -> list[str]:
        """The lanes of its processors; why some are not run."""
        refused = []
        for processor in processors:
            if processor.handles(stream):
                try:
                    with self._sources.lock:
                        why = processor_standing(processor, stream, self._met)
                except (ResponseError, StreamError, ProcessorError) as error:  # the others go on
                    why = f"the processor {processor.name} of {stream.name}: {error}"[:NOTE_MAX]
                if why:
                    refused.append(why)
                    continue
                job = EffectJob(processor, self._effect_streams.of(processor, stream))
                jobs[processor.name, stream.name] = job
        return refused

    def _look_at_view(
        self, stream: Stream, projection: Projection[Any], jobs: dict[tuple[str, str], Job], notes: list[str]
    ) -> None:
        record = self._defined(stream, projection)
        numbers = []
        for item in record.of(State.LIVE) + record.of(State.KEPT):
            recorded = as_recorded(projection, item)
            if may_go_on(item.fingerprint, recorded.fingerprint):
                group = generation_group(projection.name, item.number)
                jobs[group, stream.name] = ViewJob(recorded, item.number, stream)
                numbers.append(item.number)
                self._say_unlike(recorded, projection, f"{group} of {stream.name}")
        if record.live not in numbers:
            notes.append(_other_definition(projection, stream.name, record))
            if not self._is_run(generation_group(projection.name, record.live), stream.name):
                self._unrun.append(notes[-1])

    def _is_run(self, group: str, stream: str) -> bool:
        """Whether another host lives that can run the lanes."""
        return any(card.offers_lane(group, stream) for card in self.cards().values())

    def _defined(self, stream: Stream, projection: Projection[Any]) -> Record:
        """The view's record, with a definition that somebody claimed."""
        record = self.records.get(field_of(stream.name, projection.name), NEVER_REBUILT)
        live, own = record.find(record.live), projection.fingerprint
        if live is None:
            return record
        group = generation_group(projection.name, record.live)
        if may_go_on(live.fingerprint, own):
            if live.settings == projection.settings_json:
                return record
        elif live.fingerprint and self._is_run(group, stream.name):
            return record  # somebody lives who can run it
        with self._sources.lock:
            return claim_definition(stream, projection.name, own, projection.settings_json)

    def _old_hosts(self) -> int:
        """How many hosts of the older scheme live: they run processors under leases that we do not hold."""
        seconds, _ = self._server.client.time()
        groups = [OLD_GROUP, *[processor.name for processor in self.work.processors]]
        client: Any = self._server.client
        asks = [old_members(group, int(seconds) * 1000) for group in groups]
        return sum([int(client.execute_command(*ask.command)) for ask in asks])

    def _say_unlike(self, recorded: Projection[Any], own: Projection[Any], view: str) -> None:
        """That a view is run by other settings than this environment has, once."""
        if view not in self._unlike and (settings := unlike(recorded, own)):
            self._unlike.add(view)
            log.warning("settings_recorded", view=view, reason=f"it goes on by its own: {settings}")

    def _say(self, notes: list[str]) -> None:
        """What is new among them, once."""
        for note in notes:
            if note not in self.notes:
                log.warning("lanes_not_run", reason=note)
        self.notes = tuple(notes)


def _lanes(processor: Processor, stream: Stream) -> list[Claim]:
    """All of a processor's in a stream."""
    partitions = range(stream.partitions if processor.handles(stream) else 0)
    return [Claim(processor.name, stream.name, partition) for partition in partitions]


def _other_definition(projection: Projection[Any], stream: str, record: Record) -> str:
    live = record.find(record.live)
    by = "" if live is None else live.fingerprint
    return (
        f"the view {projection.name} of {stream} was folded by another definition ({by}) than this host has "
        f"({projection.fingerprint}, version {projection.version}): `aurastream rebuild {projection.name} "
        f"--stream {stream}` makes one by this."
    )
