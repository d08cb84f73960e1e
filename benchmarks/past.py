"""
What the archive is for, in figures: closing segments, reading them back, bytes an event, views of the past,
and why one says so.

    fill -> [archive] -> [restore: all spans] -> trim -> [a view as of the middle, with and without
        checkpoints] -> [why]

The clips are few, so that a view is small beside its log and what is measured is the log's length. The peer
writes and reads the same events as JSON lines through gzip, which is what a platform does that has no
archive.
"""

from __future__ import annotations

import gzip
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from aurastream.processors.history.as_of import reader
from aurastream.projections.built_in.trail import Trail
from aurastream.projections.past import AsOf, Inquiry, why
from aurastream.streams import OPERATIONS, InvariantBroken, Server, Stream, open_stream
from aurastream.streams.archive import history_of
from aurastream.streams.archive.archiver import Archiver
from aurastream.streams.archive.reading import StreamArchive
from aurastream.streams.entries import entry_json
from aurastream.streams.retention.trimmer import Goal, Trimmer
from benchmarks.apply import consume
from benchmarks.feed import FIRST_POLL, fill, opened
from benchmarks.measure import EXACT, NONE, Meter, Plan, Report, Row, Target, client_of
from benchmarks.reference import Pulse

CLIPS = 1_000
NAME = "archive"
AS_OF_S = 1.0
GROWTH = 1.5  # of why from the short log to the long one
BEHIND = 100  # events behind its answer
READS = 15
PAST_CLIP = "clip-0000001"


def segments(url: str, plan: Plan) -> Report:
    """Archive, restore, bytes; beside reading the bare log, and gzip's JSON lines."""
    with archived_stream(url, plan.seed, plan.history, is_archived=False) as (server, stream):
        writing, reading, bare = Meter(server.client), Meter(server.client), Meter(server.client)
        with writing:
            archive_all(stream)
        history = history_of(stream)
        with reading:
            _expect(
                sum(
                    len(span.raw) for p in range(stream.partitions) for span in history.spans(p, count=10_000)
                ),
                plan.history,
            )
        with bare:
            payload = _read_bare(stream)
        rows = [
            writing.row(NAME, "aurastream: log to segments", EXACT, plan.history),
            reading.row(NAME, "aurastream: segments to entries", EXACT, plan.history),
            bare.row(NAME, "bare server: XRANGE of the log", NONE, plan.history),
        ]
        stored = _bytes_stored()
        there, back, packed = _gzip(stream, server, plan.history)
    each = (stored / plan.history, payload / plan.history, packed / plan.history)
    note = f"raw JSON {each[1]:.0f}, gzip's JSON lines {each[2]:.0f}; manifests included"
    targets = [
        Target(
            "archive, bytes an event against raw JSON",
            0.25,
            "of it",
            each[0] / each[1],
            note=f"{each[0]:.1f} bytes; {note}",
        )
    ]
    return Report([*rows, there, back], targets)


def as_of(url: str, plan: Plan) -> Report:
    """A ranking as of the middle of the log, here and as a command, with checkpoints and without."""
    with archived_stream(url, plan.seed, plan.history) as (server, stream):
        polls = plan.history // CLIPS
        at = FIRST_POLL + timedelta(minutes=polls // 2)
        first_s = _timed(lambda: _top(stream, at))
        again_s = statistics.median(_timed(lambda: _top(stream, at)) for _ in range(READS))
        command_s = statistics.median(_timed(lambda: _command(server.url, stream, at)) for _ in range(5))
        python_s = statistics.median(
            _timed(lambda: _run([sys.executable, "-c", "import aurastream.processors.commands.main"]))
            for _ in range(5)
        )
    note = (
        f"{again_s:.2f} s of it the answer (without checkpoints {first_s:.1f} s), "
        f"{python_s:.2f} s Python with its imports"
    )
    what = f"view --at in the middle of {plan.history:,} events, the whole command"
    return Report(targets=[Target(what, AS_OF_S, "s", command_s, note=note)])


def behind(url: str, plan: Plan) -> Report:
    """why of one clip, on logs of two lengths in which it has equally many events (audit's own questions:
    audit.py).
    """
    short, long = plan.history // 10, plan.history
    took_s = {}
    for events in (short, long):
        client_of(url).flushall()
        with archived_stream(url, plan.seed, events, clips=events // BEHIND, is_trimmed=False) as (
            server,
            stream,
        ):
            consume(server, stream, Trail())
            consume(server, stream, Pulse())
            took_s[events] = _answer_s(stream)
    note = (
        f"{took_s[short] * 1e3:.1f} ms in {short:,} events, {took_s[long] * 1e3:.1f} ms in {long:,}; "
        f"{BEHIND} events behind the answer"
    )
    growth = took_s[long] / took_s[short]
    return Report(
        targets=[Target("why, time on a log ten times as long", GROWTH, "times", growth, note=note)]
    )


WORK = (segments, as_of, behind)


@contextmanager
def archived_stream(
    url: str, seed: int, events: int, *, clips: int = CLIPS, is_archived: bool = True, is_trimmed: bool = True
) -> Iterator[tuple[Server, Stream]]:
    """The feed's first `events` in a stream with an archive in a directory of its own; archived, and gone
    from the log, where asked.
    """
    directory = tempfile.mkdtemp(prefix="aura-bench-")
    os.environ["AURASTREAM_ARCHIVE"] = directory
    try:
        server, stream = opened(url)
        fill(stream, seed, events, clips)
        if is_archived:
            archive_all(stream)
        if is_archived and is_trimmed:
            trim_all(stream)
        yield server, stream
        stream.close()
        server.close()
    finally:
        del os.environ["AURASTREAM_ARCHIVE"]
        shutil.rmtree(directory)


def archive_all(stream: Stream) -> None:
    """Everything the log holds, into segments."""
    archive = history_of(stream).archive
    if not isinstance(archive, StreamArchive):
        raise InvariantBroken("AURASTREAM_ARCHIVE names no archive")
    archiver = Archiver(archive, open_stream(stream.server, OPERATIONS, create=True))
    for partition in range(stream.partitions):
        for _ in archiver.run(partition):
            pass


def trim_all(stream: Stream) -> None:
    """Everything that is archived, out of the log."""
    operations = open_stream(stream.server, OPERATIONS, create=True)
    for _ in Trimmer(stream, operations, Goal(keep_events=0)).run():
        pass
    left = sum(int(stream.server.client.xlen(keys.log)) for keys in stream.keys)
    if left:
        raise InvariantBroken(f"{left} entries stayed in the log")


def _expect(found: int, wanted: int) -> None:
    if found != wanted:
        raise InvariantBroken(f"{found} entries where {wanted} were expected")


def _read_bare(stream: Stream) -> int:
    """Every entry, and the bytes of their JSON."""
    payload = 0
    for partition in range(stream.partitions):
        after = "0-0"
        while raw := stream.read_raw(partition, after, count=10_000):
            payload += sum([len(fields[1]) for _, fields in raw])
            after = raw[-1][0].decode()
    return payload


def _gzip(stream: Stream, server: Server, events: int) -> tuple[Row, Row, int]:
    """The peer: the log's events as JSON lines, and back."""
    path = Path(os.environ["AURASTREAM_ARCHIVE"]) / "lines.json.gz"
    writing, reading = Meter(server.client), Meter(server.client)
    with writing, gzip.open(path, "wb") as file:
        for partition in range(stream.partitions):
            after = "0-0"
            while raw := stream.read_raw(partition, after, count=10_000):
                file.write(
                    b"".join(
                        [
                            b'{"position":"%b","event":%b}\n' % (place, entry_json("", fields))
                            for place, fields in raw
                        ]
                    )
                )
                after = raw[-1][0].decode()
    decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
    with reading, gzip.open(path, "rb") as file:
        _expect(sum(1 for line in file if decode(line)), events)
    peer = "JSON lines, gzip"
    return (
        writing.row(NAME, f"{peer}: write", NONE, events),
        reading.row(NAME, f"{peer}: read", NONE, events),
        path.stat().st_size,
    )


def _bytes_stored() -> int:
    return sum(
        path.stat().st_size for path in Path(os.environ["AURASTREAM_ARCHIVE"]).rglob("*") if path.is_file()
    )


def _timed(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def _top(stream: Stream, at: datetime) -> None:
    found = reader(stream, Pulse(), AsOf(at), ("benchmarks.reference",)).ranking("velocity", top=20).rows
    _expect(len(found), 20)


def _command(url: str, stream: Stream, at: datetime) -> None:
    verb = [
        "--app",
        "benchmarks.reference",
        "view",
        "pulse",
        "--stream",
        stream.name,
        "--at",
        at.isoformat(),
        "--json",
    ]
    _run([sys.executable, "-m", "benchmarks.command", *verb], AURASTREAM_REDIS_URL=url)


def _run(command: list[str], **environment: str) -> None:
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, check=False)
    if done.returncode:
        raise InvariantBroken(f"{command[2:]} failed: {done.stderr.decode()[-500:]}")


def _answer_s(stream: Stream) -> float:
    """Median seconds of why."""
    history = history_of(stream)

    def ask() -> None:
        _expect(len(why(Inquiry(history, Pulse(), PAST_CLIP)).steps), BEHIND)

    return statistics.median(_timed(ask) for _ in range(READS))
