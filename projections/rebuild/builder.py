"""
One partition's way into a generation that nobody else writes: as fast as it goes.

    archive, then log -> spans, the next one asked for before this one is folded -> decode -> fold a great
        many together
                      -> one commit of the rows that are different by then, which the server works at while we
                          read on

The same fold and the same script as ever; only the batches are large, as no reader waits for them: rows are
encoded and written once a batch, however often they changed in it. The cursor is in every commit, so a build
that was killed goes on from the last.

Decision (2026-11): batches of up to EVENTS_MAX events, or as many keys as make ROWS_MAX rows: a commit keeps
the server busy for its rows alone, under 100 ms. Where more keys than that take turns, each is written nearly
as often as it changes, as in the live path. Digests are not made where append.lua made every entry of the log
('pure' in commit.lua): the archive says which entries are duplicates, and a pure log has none. A log with
foreign entries is folded in the live path's small batches, with digests, at the live path's speed (as is any
on Redis 6.2, which does not count the entries ever added).
Refused: one commit at the end, from which a kill at 60 % would begin anew; commits in parts, of which the
first would be ahead of the cursor; rows by RESTORE, whose format is the server's.
Measured (Python 3.11, Valkey 9.1, 2 shared cores, 10^6 events of 10,000 keys, CPU of this process an event):
the reference projection 3.4 us from the log, 3.6 from Parquet, so 293,000 and 276,000 events/s a core (about
as many by the clock), where the live path takes 9.4 us; trail 3.4; clips 7 to 8, so 122,000 to 145,000, 3.5
us of them its own apply, which nothing around it can save. The server spends 0.6 us, at most 90 ms a commit.
Of 3.4: 0.5 to read, 0.4 checksums (0.1 from Parquet, whose hash was just compared), 0.6 JSON, 0.7 apply, 0.2
commits. Memory 155 MB a process with 10,000 keys, 220 for clips, from the first 10^5 events on: batches and
states, not the log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from aurastream.projections.engine import AnyProjection, Batch, Commit, CommitAnswer, Lane, Source, start_of
from aurastream.streams import (
    Ask,
    Asking,
    Command,
    Cursor,
    History,
    InvariantBroken,
    Position,
    RawEntry,
    Span,
    Wire,
    drive,
    last_of,
    sound,
)

SPAN = 2_000  # entries read at once
EVENTS_MAX = 100_000  # events folded together
ROWS_MAX = 20_000  # rows of a commit, about: bounds how long it keeps the server busy, 2 to 4 us a row
KEYS_FIRST, KEYS_MAX = (
    3_000,
    10_000,
)  # subjects of the first batch, before it is known how many rows one makes, and of any
STATES_MAX = 300_000  # states kept in memory; those beyond are read again when they are needed
SMALL = 2_000  # entries of a commit with digests
REFUSED_MAX = 20  # commits refused in a row

T = TypeVar("T")


class Refused(Exception):
    """A commit was not OK and the states are worth nothing: settle and go on."""

    def __init__(self, answer: CommitAnswer) -> None:
        super().__init__(answer.name)
        self.answer = answer


class BuildLane(Lane):
    """Folds one partition into a generation, under the lease of that epoch. ``close`` it. Not for several
    threads.

    stopping: asked between two spans; what was folded by then is committed first. is_shared: others may write
    the generation too, and where one does, ``build`` leaves the rest to it.
    """

    states_max = STATES_MAX

    def __init__(
        self,
        projection: AnyProjection,
        history: History,
        partition: int,
        generation: int,
        *,
        epoch: int | None = None,
    ) -> None:
        super().__init__(projection, history.stream, partition, generation=generation, batch_max=SMALL)
        self.history, self.epoch = history, epoch
        self.stopping: Callable[[], bool] = lambda: False
        self.is_shared = False
        self._reader: Wire | None = None
        self._writer: Wire | None = None
        self._under_way: Cursor | None = None  # where the commit leads to whose answer was not read yet
        self._is_pure, self._keys_max = True, KEYS_FIRST

    def build(self, until: str = "+") -> Cursor:
        """Fold and commit up to and including the position ("+": all there is now), or until told to stop.
        Returns the cursor.

        Raises Fenced, Retired, and what a person must mend; one of LOST or another passing fault, after which
        ``close`` and repeat.
        """
        refused = 0
        while True:
            before = self.commits
            try:
                if not self._is_settled:
                    self.drive(self.settle(is_trim_passed=True))
                self._build_on(until)
                self._answered()
            except Refused as refusal:
                if self.is_shared and refusal.answer is CommitAnswer.STALE:
                    self.drive(self.settle(is_trim_passed=True))
                    return self.cursor
                refused = 1 if self.commits > before else refused + 1
                self._is_pure = self._is_pure and refusal.answer is not CommitAnswer.IMPURE
                if refused > REFUSED_MAX:
                    raise InvariantBroken(
                        f"generation {self.generation} of {self.projection.name} cannot get past "
                        f"{self.cursor.position or 'the start'} of {self.keys.where}: {REFUSED_MAX} commits "
                        f"were refused ({refusal}). Run `aurastream check`."
                    ) from refusal
            else:
                return self.cursor

    def drive(self, steps: Asking[T]) -> T:
        """Drive over the connection the commits go by, so that the steps see what those wrote."""
        return drive(steps, self._exchange)

    def _exchange(self, asks: list[Ask]) -> list[Any]:
        self._answered()
        wire = self._writing()
        wire.send([ask.command for ask in asks])
        return [wire.receive() for _ in asks]

    def close(self) -> None:
        """Drop the connections; a commit under way is known by the cursor."""
        for wire in (self._reader, self._writer):
            if wire is not None:
                wire.close()
        self._reader = self._writer = self._under_way = None
        self.reset()

    def _build_on(self, until: str) -> None:
        """Batch after batch from the cursor. Raises Refused."""
        held: list[Batch] = []
        events, keys = 0, set[str]()
        for span in self._spans(until):
            if held and (
                held[0].is_archived != span.is_archived or events >= EVENTS_MAX or len(keys) >= self._keys_max
            ):
                self._bulk(held, len(keys))
                held, events, keys = [], 0, set()
            if span.is_archived or self._is_pure:
                batch = Batch(span, self._codec, self.keys.where, self._any_type)
                held.append(batch)
                events += len(span.raw)
                keys.update([event.subject for _, event in batch.events])
            else:
                self._small(span.raw)
            if self.stopping():
                break
        if held:
            self._bulk(held, len(keys))

    def _spans(self, until: str) -> Iterator[Span]:
        """What follows the cursor. The next part of the log is asked for before this one is worked at.

        Where the trimmer passes us meanwhile the next commit is refused (BEHIND, GAP), and the archive has it
        when we look again.
        """
        after, archive = self.cursor.position or "0-0", self.history.archive
        wire = self._reading()
        wire.send([("HGET", self.keys.meta, "trimmed_to")])
        trimmed_to = Position.parse(_sound(wire.receive()) or "")
        if archive is None and trimmed_to > Position.parse(after):
            yield from self.history.spans(
                self.partition, after, until, SPAN
            )  # raises, and says which archive it takes
            return
        if archive is not None and Position.parse(archive.until(self.partition)) > Position.parse(after):
            for span in archive.spans(self.partition, after, until, SPAN):
                yield span
                after = span.raw[-1][0].decode()
        if Position.parse(after) >= last_of(until):
            return
        wire.send([self._range(after, until)])
        while raw := _sound(wire.receive()):
            if len(raw) == SPAN:
                wire.send([self._range(raw[-1][0].decode(), until)])
            yield Span(raw)
            if len(raw) < SPAN:
                return

    def _range(self, after: str, until: str) -> Command:
        return ("XRANGE", self.keys.log, f"({after}", until, "COUNT", SPAN)

    def _bulk(self, held: list[Batch], keys: int) -> None:
        """Fold the batches together and send their commit, once that of the ones before is answered."""
        events = held[0].events if len(held) == 1 else [pair for batch in held for pair in batch.events]
        changes = self.drive(self._folded(events))
        rows = sum([len(change.put) + len(change.drop) for change in changes])
        self._keys_max = min(KEYS_MAX, ROWS_MAX * (keys + 1) // (rows + 1))
        self._answered()
        differs = any(batch.differs for batch in held)
        after = start_of(self.cursor, self._fingerprint, differs=differs) or self.cursor
        for batch in held:
            after = batch.advance(after, after.fingerprint, self._fold.watermark)
        commit = Commit(
            before=self.cursor,
            after=after,
            first=held[0].positions[0],
            last=held[-1].checksum_parts[-1],
            source=Source.ARCHIVE if held[0].is_archived else Source.PURE,
            changes=changes,
            dead={position: reason for batch in held for position, reason in batch.dead.items()},
        )
        self._writing().send([commit.command(self.view, self.epoch)])
        self._under_way = after

    def _small(self, raw: list[RawEntry]) -> None:
        """In the live path's batches: every one with the evidence of which entries count."""
        for first in range(0, len(raw), SMALL):
            answer, _ = self.drive(self.commit(raw[first : first + SMALL]))
            if answer is not CommitAnswer.OK:
                raise Refused(answer)

    def _refuse(self, answer: CommitAnswer, reply: list[Any]) -> None:
        """As ever, but that entries were trimmed before we read them: the archive has them."""
        if answer is CommitAnswer.BEHIND:
            self.reset()
            raise Refused(answer)
        super()._refuse(answer, reply)

    def _answered(self) -> None:
        """Read the answer to the commit under way. Raises Refused, and what ``commit`` raises."""
        after, self._under_way = self._under_way, None
        if after is None:
            return
        reply = _sound(self._writing().receive())
        answer = CommitAnswer(reply[0])
        if answer is not CommitAnswer.OK:
            self._refuse(answer, reply)
            raise Refused(answer)
        self.cursor = after
        self.commits += 1

    def _writing(self) -> Wire:
        if self._writer is None:
            self._writer = self.stream.server.wire(self.keys.log)
        return self._writer

    def _reading(self) -> Wire:
        if self._reader is None:
            self._reader = self.stream.server.wire(self.keys.log)
        while self._reader.outstanding:
            self._reader.receive()
        return self._reader


def _sound(answer: Any) -> Any:
    return sound([answer])[0]
