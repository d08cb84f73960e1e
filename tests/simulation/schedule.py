"""
One schedule: a seed's world lives through its faults, heals, drains, and is judged.

Judged by tests/invariants.py, over what the server in memory holds: I1 to I3 and I5 at the end, I4 at moments
of the run; that nobody stopped with an error; and that everything was applied within DRAIN_MS of the last
fault.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from zlib import crc32

from aurastream.streams import ClipViewsObserved, Event
from tests.invariants import GROUP, Ack, Held, check, check_acks, check_prefix
from tests.simulation.actors import STREAM, Owner, producer, reader, stream_of
from tests.simulation.fleet import position_of
from tests.simulation.memory import KINDS, Log, Memory, Ranked
from tests.simulation.world import Actor, World

FAULTY_MS = 1_200.0
DRAIN_MS = 5_000.0
NOON = datetime(2026, 4, 15, 12, tzinfo=UTC)
CLIPS = ["clip-1", "clip-2", "clip-3", "clip-4"]
CATEGORIES = ["", "chess", "music"]


@dataclass
class Schedule:
    """What a seed did and what was found."""

    seed: int
    events: int = 0
    findings: list[str] = field(default_factory=list)
    faults: dict[str, int] = field(default_factory=dict)
    refusals: dict[str, int] = field(default_factory=dict)
    longest_still_ms: float = 0.0
    story: list[str] = field(default_factory=list)


def held_in(memory: Memory, partition: int) -> Held:
    """As invariants.held_by reads a real server."""
    tag = f"aura:{{{STREAM}.{partition}}}:"
    held = Held(STREAM, partition)
    for name, value in memory.data.items():
        if not (key := name.decode()).startswith(tag):
            continue
        tail = key.removeprefix(tag)
        held.kinds[tail] = KINDS[type(value)].decode()
        if isinstance(value, Log):
            held.log = [
                (place.decode(), dict(zip(fields[::2], fields[1::2], strict=True)))
                for place, fields in value.entries
            ]
            held.added = value.added
            held.pending = {name.decode(): len(group.pending) for name, group in value.groups.items()}
        elif isinstance(value, Ranked):
            held.rankings[tail] = dict(value)
        elif isinstance(value, dict):
            held.hashes[tail] = value
    return held


class Play:
    """One group on a stream, and whoever works on it."""

    def __init__(self, seed: int) -> None:
        self.world = World(seed)
        self.dice = dice = self.world.dice
        self.partitions = dice.choice((1, 1, 2))
        self.stream = stream_of(self.partitions)
        self.done = Schedule(seed, story=self.world.story, faults=self.world.faults)
        self.acks: list[Ack] = []
        self.copies: list[Memory] = []
        self.workers: list[Actor] = []
        self.has_failed_over = self.has_strangers = False
        self._born = 0

    def run(self) -> Schedule:
        world, dice = self.world, self.dice
        batches = self._batches()
        self.done.events = sum(map(len, batches))
        half = len(batches) // 2
        producers = [
            world.start(f"producer {n}", producer(self.stream, part, dice, self._heard))
            for n, part in enumerate((batches[:half], batches[half:]))
        ]
        self._bear("reader" if dice.random() < 0.3 else "owner")
        for _ in range(dice.choice((1, 2))):
            self._bear("reader" if dice.random() < 0.3 else "owner")
        for _ in range(dice.randrange(2, 9)):
            world.after(dice.uniform(5, FAULTY_MS), self._misfortune)
        world.run(lambda: False, FAULTY_MS)
        world.is_faulty = False
        world.story.append(f"{world.now_ms:9.1f} ms  no faults from here on")
        self._populate()
        self._drain(producers)
        return self.done

    def _populate(self) -> None:
        """Somebody must be there to finish."""
        if not self._living():
            self._bear("reader")

    def _batches(self) -> list[list[Event]]:
        """New events, and some again: in a batch, and in a later one."""
        dice, number = self.dice, 0
        batches: list[list[Event]] = []
        every: list[Event] = []
        for _ in range(dice.randrange(4, 14)):
            batch: list[Event] = []
            for _ in range(dice.randrange(1, 5)):
                if every and dice.random() < 0.15:
                    batch.append(dice.choice(every))
                    continue
                number += 1
                event = ClipViewsObserved(
                    event_id=f"e{number}",
                    subject=dice.choice(CLIPS),
                    occurred_at=NOON + timedelta(seconds=dice.randrange(-3_600, 3_600)),
                    views=dice.randrange(100),
                    category=dice.choice(CATEGORIES),
                )
                every.append(event)
                batch.append(event)
            batches.append(batch)
        return batches

    def _heard(self, event_id: str, outcome: str) -> None:
        self.acks.append(Ack(event_id, "memory", outcome))

    def _bear(self, kind: str) -> None:
        self._born += 1
        name, batch_max = f"{kind} {self._born}", self.dice.choice((1, 2, 3, 7, 100))
        if kind == "owner":
            self._bear_owner(name, batch_max)
            return
        for partition in range(self.partitions):
            self.workers.append(
                self.world.start(f"{name}/{partition}", reader(self.stream, partition, batch_max, self.dice))
            )

    def _bear_owner(self, name: str, batch_max: int) -> None:
        life = Owner(self.stream, name, batch_max, self.dice, (GROUP,)).life(lambda: self.world.now_ms)
        self.workers.append(self.world.start(name, life))

    def _misfortune(self) -> None:
        self.dice.choice(self._misfortunes())()

    def _misfortunes(self) -> tuple[Callable[[], None], ...]:
        return (
            self._kill,
            self._kill,
            self._pause,
            self._pause,
            self._copy,
            self._copy,
            self._fail_over,
            self._flush,
            self._meddle,
            self._meddle,
            self._mirror,
            self._glimpse,
            self._glimpse,
        )

    def _living(self) -> list[Actor]:
        return [worker for worker in self.workers if not worker.is_over]

    def _kill(self) -> None:
        if living := self._living():
            victim = self.dice.choice(living)
            self.world.note("killed", victim.name)
            self.world.kill(victim)
            kind = victim.name.split(" ", maxsplit=1)[0]
            self.world.after(self.dice.uniform(1, 500), lambda: self._bear(kind))

    def _pause(self) -> None:
        if living := self._living():
            victim = self.dice.choice(living)
            victim.paused_until = self.world.now_ms + self.dice.uniform(50, 700)
            self.world.note("paused", victim.name, f"until {victim.paused_until:.0f} ms")

    def _copy(self) -> None:
        self.copies.append(self.world.server.copy())
        self.world.note("copied")

    def _fail_over(self) -> None:
        """To a copy from before, log and view together; its clock may be behind or ahead."""
        copy = self.dice.choice(self.copies) if self.copies else Memory()
        self.copies = []
        again_ms = (
            copy.now_ms - self.world.server.now_ms
        )  # its clock is where it was when copied: positions come back
        skew_ms = self.dice.choice(
            (0.0, again_ms, -self.dice.uniform(0, 2_000), self.dice.uniform(0, 100_000))
        )
        self.has_failed_over = True
        self.world.note("failed over", f"clock {skew_ms:+.0f} ms")
        self.world.fail_over(copy, skew_ms)

    def _flush(self) -> None:
        self.world.note("scripts flushed")
        self.world.server.scripts.clear()

    def _meddle(self) -> None:
        """An operator's hand on the consumer group."""
        log = self.stream.keys[self.dice.randrange(self.partitions)].log
        commands: tuple[tuple[Any, ...], ...] = (
            ("XGROUP", "SETID", log, "counting", "0"),
            ("XGROUP", "SETID", log, "counting", "$"),
            ("XGROUP", "DESTROY", log, "counting"),
            ("XGROUP", "DELCONSUMER", log, "counting", "owner"),
            ("XREADGROUP", "GROUP", "counting", "thief", "COUNT", 10, "STREAMS", log, ">"),
        )
        command = self.dice.choice(commands)
        self.world.note("meddled", *command)
        self.world.server.run([command])

    def _mirror(self) -> None:
        """Somebody writes to the log with a plain XADD: an event that is there, or one of his own."""
        partition = self.dice.randrange(self.partitions)
        log = self.stream.keys[partition].log
        entries = self.world.server.run([("XRANGE", log, "-", "+")])[0]
        self.has_strangers = True
        if entries and self.dice.random() < 0.7:
            fields = self.dice.choice(entries)[1]
        else:
            raw = self.stream.codec.encode(
                ClipViewsObserved(
                    event_id=f"raw{len(entries)}", subject=CLIPS[0], occurred_at=NOON, views=7, category="raw"
                )
            )
            fields = [b"event", raw, b"crc32", b"%d" % crc32(raw)]
        self.world.note("mirrored", log)
        self.world.server.run([("XADD", log, "*", *fields)])

    def _glimpse(self) -> None:
        for held in self._helds():
            self._find(check_prefix(held))

    def _helds(self) -> list[Held]:
        """Every partition, as the checker knows it."""
        return [held_in(self.world.server, partition) for partition in range(self.partitions)]

    def _find(self, sentences: list[str]) -> None:
        self.done.findings += sentences
        self.world.story += [f"{self.world.now_ms:9.1f} ms  FINDING {sentence}" for sentence in sentences]

    def _drain(self, producers: list[Actor]) -> None:
        world = self.world
        is_done = world.run(lambda: all(item.is_over for item in producers) and self._is_applied(), DRAIN_MS)
        world.run(lambda: not world.under_way, DRAIN_MS)  # a late duplicate may still be on its way
        for actor in world.actors:
            if actor.trouble is not None:
                self._find([f"{actor.name} stopped: {type(actor.trouble).__name__}: {actor.trouble}"])
        if not is_done:
            self._find([f"not everything was applied {DRAIN_MS / 1000:.0f} s after the last fault"])
        # A reader that starts puts the group in line with the cursor; until then pending entries are only
        # untidy.
        tidy = [
            world.start("tidy", reader(self.stream, partition, 100, self.dice))
            for partition in range(self.partitions)
        ]
        world.run(lambda: all(actor.turn > 14 for actor in tidy), 300)
        helds = self._helds()
        for held in helds:
            self._find(check(held))
        may_lose = ["memory"] if self.has_failed_over else []
        first = helds[: self.partitions]  # the same logs for every group
        self._find(check_acks(first, self.acks, may_lose=may_lose, strangers=self.has_strangers))

    def _is_applied(self) -> bool:
        return all(self._is_group_applied(GROUP, partition) for partition in range(self.partitions))

    def _is_group_applied(self, group: str, partition: int) -> bool:
        log = self.world.server.data.get(self.stream.keys[partition].log.encode())
        at = position_of(self.world.server, group, partition)
        return log is None or not log.entries or at == log.entries[-1][0]
