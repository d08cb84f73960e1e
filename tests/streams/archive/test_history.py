"""Archive, then log: every entry once, however the trimmer runs meanwhile."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest

from aurastream.streams import History, Position, Server, Settings
from aurastream.streams.archive import history_of
from aurastream.streams.errors import ArchiveNeeded, ArchiveRefused
from tests.processors.importing.imports import seed_of_this_run
from tests.streams.archive.kept import Kept, append, plain


@pytest.fixture
def kept(server: Server, tmp_path: Path) -> Kept:
    return Kept(server, tmp_path / "archive", segment_events=500)


def test_the_past_is_the_archive_and_then_the_log(kept: Kept) -> None:
    """A rebuild reads across the seam, and must not notice it."""
    append(kept, 1_200)
    log = kept.log()
    kept.close_segments()
    append(kept, 300, start=1_200)
    log = kept.log()
    kept.trim(log[700][0].decode())

    spans = list(kept.history().spans(0, count=130))

    assert plain(entry for span in spans for entry in span.raw) == log
    assert [span.is_archived for span in spans] == sorted((span.is_archived for span in spans), reverse=True)
    assert {len(span.raw) <= 130 for span in spans} == {True}
    assert sum(len(span.raw) for span in spans if not span.is_archived) == 300


@pytest.mark.parametrize("attempt", range(3))
@pytest.mark.slow
def test_any_range_is_that_of_the_log_as_it_was(kept: Kept, attempt: int) -> None:
    """Checkpoints and cursors begin anywhere."""
    dice = random.Random(f"{seed_of_this_run()} {attempt}")
    append(kept, 1_100)
    kept.close_segments(min_events=dice.choice([1, 500]))
    append(kept, 200, start=1_100)
    log = kept.log()
    kept.trim(log[dice.randrange(1_000)][0].decode())
    pairs = [Position.parse(position) for position, _ in log]

    for _ in range(60):
        low, high = sorted(dice.choices(pairs, k=2))
        low, high = (low[0], max(0, low[1] - dice.randrange(2))), (high[0], high[1] + dice.randrange(2))
        until = dice.choice([f"{high[0]}-{high[1]}", str(high[0]), "+"])
        end = {"+": (2**64, 0), str(high[0]): (high[0], 2**64)}.get(until, high)
        spans = kept.history().spans(0, f"{low[0]}-{low[1]}", until, dice.choice([1, 90, 5_000]))
        assert plain(entry for span in spans for entry in span.raw) == [
            entry for entry, pair in zip(log, pairs, strict=True) if low < pair <= end
        ]
    chosen = [position.decode() for position, _ in dice.choices(log, k=30)]
    assert set(kept.history().entries(0, [*chosen, "5-5"])) == set(chosen)


def test_an_archive_and_a_trim_in_the_middle_of_a_read_leave_no_gap(kept: Kept) -> None:
    """The reader is in the live log when everything it has not read yet is archived and trimmed."""
    append(kept, 2_000)
    log = kept.log()
    read = []

    for number, span in enumerate(kept.history().spans(0, count=100)):
        read += plain(span.raw)
        if number == 3:
            kept.close_segments()
            kept.trim(log[1_499][0].decode())
        if number == 8:
            kept.trim(log[-1][0].decode())

    assert read == log


@pytest.mark.slow
def test_a_reader_beside_archiver_and_trimmer_sees_every_entry_once(kept: Kept, server: Server) -> None:
    """Producer, archiver and trimmer run as fast as they can; readers begin again and again, wherever they
    are.
    """
    stop = threading.Event()
    failed: list[BaseException] = []

    def churn() -> None:
        try:
            own = Kept(Server(server.url), kept.settings.archive, segment_events=90)
            for number in range(40):
                append(own, 100, start=100 * number)
                if number % 3 == 0:
                    own.close_segments()
                if number % 4 == 1:
                    held = own.log()
                    archived = Position.parse(own.archive().until(0))
                    until = [p for p, _ in held if Position.parse(p) <= archived]
                    if until:
                        own.trim(until[-1].decode())
        except BaseException as error:
            failed.append(error)
        finally:
            stop.set()

    thread = threading.Thread(target=churn)
    thread.start()
    rounds, longest = 0, 0
    while not stop.is_set() or rounds == 0:
        seen = [fields[1] for span in kept.history().spans(0, count=37) for _, fields in span.raw]
        names = [b'"event_id":"e%d"' % number for number in range(len(seen))]
        assert all(name in json for name, json in zip(names, seen, strict=True)), rounds
        rounds, longest = rounds + 1, max(longest, len(seen))
    thread.join()

    assert failed == []
    assert rounds > 3
    final = [fields for span in kept.history().spans(0) for _, fields in span.raw]
    assert len(final) == 4_000
    assert len(kept.log()) < 4_000
    assert longest > 0


def test_a_trimmed_log_without_its_archive_is_an_error_and_never_a_short_past(kept: Kept) -> None:
    """A view folded from half a past looks right."""
    append(kept, 100)
    log = kept.log()
    kept.close_segments()
    kept.trim(log[49][0].decode())
    bare = History(kept.stream)

    with pytest.raises(ArchiveNeeded, match="Set AURASTREAM_ARCHIVE to /"):
        list(bare.spans(0))
    with pytest.raises(ArchiveNeeded):
        bare.entries(0, [log[3][0].decode()])
    assert plain(entry for span in bare.spans(0, log[49][0].decode()) for entry in span.raw) == log[50:]
    assert len(bare.entries(0, [log[60][0].decode()])) == 1
    assert list(history_of(kept.stream, Settings()).spans(0, log[-1][0].decode())) == []


def test_what_is_in_neither_is_an_error(kept: Kept, server: Server) -> None:
    """The slot was lost, or restored from an older copy, after the trim."""
    append(kept, 100)
    kept.close_segments()
    kept.trim(kept.log()[49][0].decode())
    server.client.delete(kept.keys.archive)

    with pytest.raises(ArchiveRefused, match="in neither"):
        list(kept.history().spans(0))


def test_a_range_that_ends_before_it_begins_is_empty(kept: Kept) -> None:
    """Bounds come from cursors that may have passed each other."""
    append(kept, 10)
    log = kept.log()
    kept.close_segments()
    kept.trim(log[5][0].decode())

    assert list(kept.history().spans(0, log[4][0].decode(), log[3][0].decode())) == []
    assert list(kept.history().spans(0, log[4][0].decode(), log[4][0].decode())) == []
