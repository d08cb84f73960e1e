"""kill -9 at every step of the archiver: nothing lost, nothing doubled, and the next run goes on."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import duckdb
import pytest

from aurastream.streams import Server
from aurastream.streams.archive import lease, store
from aurastream.streams.archive.archiver import STEPS
from tests.servers import forked
from tests.streams.archive.kept import Kept, append, plain, raw_add

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.any_server]
KILLED = -signal.SIGKILL


@pytest.fixture
def kept(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kept:
    monkeypatch.setattr(lease, "LEASE_MS", 300)  # a killed archiver's lease is waited for
    return Kept(server, tmp_path / "archive", segment_events=400)


def archive_and_die(kept: Kept, step: str, count: int) -> int:
    """An archiver in a process of its own that kills itself when it passes the step for the count-th time;
    its exit code.
    """

    def live() -> None:
        own = Kept(Server(kept.server.url), kept.settings.archive, segment_events=400)
        left = [count]

        def on_step(at: str) -> None:
            left[0] -= at == step
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        if step == "half a file":
            store.os.fsync = lambda descriptor: on_step("half a file")  # type: ignore[attr-defined]
        own.close_segments(on_step)

    return forked(live, "the archiver")


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("step", [*STEPS, "half a file"])
def test_an_archiver_killed_at_any_step_loses_and_doubles_nothing(kept: Kept, step: str, count: int) -> None:
    """The trimmer believes the slot: it must be true at every instant."""
    append(kept, 900)
    raw_add(kept, "event", b"{}", "crc32", b"0")
    log = kept.log()

    died = archive_and_die(kept, step, count if step != "leased" else 1)
    seen_by_duckdb = kept.archive().until(0)
    append(kept, 50, start=900)
    kept.close_segments()

    assert died == KILLED
    assert seen_by_duckdb in {"", log[399][0].decode(), log[799][0].decode(), log[-1][0].decode()}
    assert plain(kept.archived()) == kept.log()
    chain = kept.archive().segments(0)
    assert kept.told() == [("clips-test", item.number) for item in chain]
    assert kept.files() == sorted(f"{item.name}.{ending}" for item in chain for ending in ("json", "parquet"))
    positions = duckdb.sql(
        f"select position from '{kept.settings.archive}/clips-test/*/*.parquet'"
    ).fetchall()
    assert sorted(text.encode() for (text,) in positions) == sorted(position for position, _ in kept.log())


def test_a_segment_that_was_committed_but_not_told_is_told_by_the_next_run(kept: Kept) -> None:
    """There may be nothing new to close then; and what was told is not told again."""
    append(kept, 400)

    assert archive_and_die(kept, "committed", 1) == KILLED
    assert kept.told() == []
    assert kept.close_segments() == []
    kept.server.client.hset(kept.keys.archive, "told", 0)
    assert kept.close_segments() == []

    assert kept.told() == [("clips-test", 1)]


def test_a_killed_archivers_trimmed_log_is_still_whole(kept: Kept) -> None:
    """What the slot names may be trimmed at once, however the archiver ended."""
    append(kept, 900)
    log = kept.log()

    assert archive_and_die(kept, "committed", 2) == KILLED
    kept.trim(kept.archive().until(0))
    append(kept, 100, start=900)

    log += kept.log()[100:]
    assert plain(entry for span in kept.history().spans(0) for entry in span.raw) == log
    kept.close_segments()
    assert plain(kept.archived()) == log
