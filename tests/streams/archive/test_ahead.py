"""The archive is ahead of the log after a fail-over to a replica that lagged: shown, taken back by
decision, and archiving goes on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from aurastream.streams import (
    OPERATIONS,
    ArchiveDamaged,
    ArchiveRefused,
    ArchiveUnusable,
    ClipViewsObserved,
    History,
    SegmentSetAside,
    Server,
    Settings,
    open_stream,
)
from aurastream.streams.archive import WhoAndWhy, audited_by, segments_ahead, take_back, verify_partition
from aurastream.streams.archive.orphans import ASIDE
from tests.commands import Done, Home
from tests.facts import observation
from tests.faults.harness import Run
from tests.faults.replication import Pair
from tests.servers import until
from tests.streams.archive.kept import Kept

pytestmark = pytest.mark.any_server

DECISION = WhoAndWhy("ada@host", "the replica lagged")


def events(start: int, count: int, clip: str = "clip") -> list[ClipViewsObserved]:
    return [
        observation(
            event_id=f"e{n}", clip=f"{clip}-{n % 5}", minute=n, views=n, creator="anna", title=f"Title {n}"
        )
        for n in range(start, start + count)
    ]


class Town:
    """A primary, its replica, and commands that reach whichever is the primary."""

    def __init__(self, home: Home, run: Run, folder: Path) -> None:
        self._home, self.pair = home, Pair(run)
        self.url = self.pair.address.url
        self.env = {
            "AURASTREAM_REDIS_URL": self.url,
            "AURASTREAM_ARCHIVE": str(folder / "archive"),
            "AURASTREAM_PARTITIONS": "1",
            "AURASTREAM_SEGMENT_EVENTS": "1000",
        }

    def run(self, *words: str) -> Done:
        return self._home.run(*words, env=self.env)

    def append(self, start: int, count: int) -> None:
        server = Server(self.url)
        stream = open_stream(server, "clips", create=True, settings=Settings(partitions=1))
        stream.append(events(start, count))
        stream.close()
        server.close()

    def follow(self) -> None:
        """Until the replica has all of it."""
        offset = Server(self.pair.primary.url).client.info("replication")["master_repl_offset"]
        until(
            lambda: self.pair.client.info("replication")["slave_repl_offset"] >= offset,
            "the replica to have all of it",
        )


@pytest.fixture
def town(home: Home, tmp_path: Path) -> Iterator[Town]:
    with Run(1) as run:
        yield Town(home, run, tmp_path)


@pytest.mark.process
def test_what_a_replica_lacked_comes_back_by_decision_and_archiving_goes_on(town: Town) -> None:
    """Acknowledged events that only the archive's files hold must not need a person who moves files."""
    town.append(0, 100)
    assert town.run("run", "--until-idle", "--projection", "clips").code == 0
    assert town.run("archive").code == 0
    town.follow()
    town.pair.link.freeze()
    town.append(100, 60)
    assert town.run("archive").code == 0  # closes what the replica never gets
    town.pair.lose_primary()
    town.append(90, 30)  # producers repeat what they are not sure of, and go on
    town.append(500, 5)

    refused = town.run("archive", "--stream", "clips")
    shown = town.run("archive", "ahead", "--stream", "clips", "--json")
    taken = town.run("archive", "ahead", "--append", "--why", "the replica lagged", "--json")
    again = town.run("archive", "ahead", "--append", "--json")
    archived = town.run("archive", "--json")
    verified = town.run("audit", "verify", "--json")
    assert town.run("run", "--until-idle", "--projection", "clips").code == 0

    assert (refused.code, "aurastream archive ahead --stream clips" in refused.err) == (1, True), refused
    assert shown.code == 1
    (segment,) = json.loads(shown.out)["segments"]
    assert (segment["stream"], segment["number"], segment["entries"]) == ("clips", 2, 60)
    assert [event["event_id"] for event in segment["missing"]] == [f"e{n}" for n in range(120, 160)]
    assert taken.code == 0, taken
    assert json.loads(taken.out)["appended"] >= 40  # the audit trail lacked some as well
    assert again.json() == {"segments": [], "appended": 0, "refused": []}
    assert sum(item["entries"] for item in archived.json()["segments"] if item["stream"] == "clips") == 65
    assert verified.json()["findings"] == []
    assert town.run("check", "--projection", "clips").code == 0
    server = Server(town.url)
    log = open_stream(server, "clips")
    ids = [entry.event.event_id for entry in log.read(0)]
    titles = [
        log.keyring.open_text(entry.event.title)
        for entry in log.read(0)
        if isinstance(entry.event, ClipViewsObserved)
    ]
    trail = open_stream(server, OPERATIONS)
    told = [entry.event for entry in trail.read(0) if isinstance(entry.event, SegmentSetAside)]
    log.close()
    trail.close()
    server.close()
    assert sorted(ids) == sorted(f"e{n}" for n in [*range(160), *range(500, 505)])
    assert sorted(titles) == sorted(f"Title {name[1:]}" for name in ids)
    (event,) = [event for event in told if event.subject == "clips"]
    assert (event.number, event.entries, event.events, event.why) == (2, 60, 40, "the replica lagged")


@pytest.fixture
def kept(server: Server, tmp_path: Path) -> Kept:
    return Kept(server, tmp_path / "archive", segment_events=1_000)


def set_back(kept: Kept) -> Kept:
    """The server as it was before the last segment, and a log that went on otherwise."""
    kept.stream.append(events(0, 20))
    kept.close_segments()
    copy = {key: kept.server.client.dump(key) for key in kept.server.client.scan_iter()}
    kept.stream.append(events(20, 10))
    kept.close_segments()
    kept.server.client.flushall()
    for key, value in copy.items():
        kept.server.client.restore(key, 0, value)
    return Kept(kept.server, kept.settings.archive, segment_events=1_000)


def ahead_of(kept: Kept) -> list[list[str]]:
    return [[event.event_id for event in one.missing] for one in segments_ahead(kept.archive(), 0)]


def test_a_decision_that_was_cut_off_is_done_by_its_repetition_and_told_once(kept: Kept) -> None:
    """Between the audit event, the events and the files a process may be killed."""
    back = set_back(kept)
    (before,) = segments_ahead(back.archive(), 0)
    blocked = Path(kept.settings.archive) / "clips-test" / "0000" / ASIDE
    blocked.write_text("no folder can be made here")

    with pytest.raises(ArchiveUnusable):
        take_back(back.archive(), back.operations, before, DECISION)
    blocked.unlink()
    (after,) = segments_ahead(back.archive(), 0)
    appended = take_back(back.archive(), back.operations, after, DECISION)

    assert (len(before.missing), len(after.missing), appended) == (10, 0, 0)
    assert segments_ahead(back.archive(), 0) == []
    told = [entry.event for entry in back.operations.read(0) if isinstance(entry.event, SegmentSetAside)]
    assert [event.events for event in told] == [10]
    assert len(back.close_segments()) == 1
    assert sorted(path.suffix for path in blocked.iterdir()) == [".json", ".json", ".parquet"]


def test_a_segment_without_its_manifest_is_taken_back_too(kept: Kept) -> None:
    """Its archiver was killed between the two files."""
    back = set_back(kept)
    for path in kept.files_of("json"):
        if path.name.startswith("00000002"):
            path.unlink()

    assert ahead_of(back) == [[f"e{n}" for n in range(20, 30)]]
    (segment,) = segments_ahead(back.archive(), 0)
    assert take_back(back.archive(), back.operations, segment, DECISION) == 10
    assert ahead_of(back) == []
    back.close_segments()
    audited = audited_by(History(back.operations))
    assert verify_partition(back.stream, 0, back.archive(), audited).findings == []


def test_a_segment_that_is_not_what_was_written_is_refused(kept: Kept) -> None:
    """What is appended is believed for ever."""
    back = set_back(kept)
    (file,) = [path for path in kept.files_of("parquet") if path.name.startswith("00000002")]
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)

    with pytest.raises(ArchiveDamaged):
        segments_ahead(back.archive(), 0)
    with pytest.raises(ArchiveRefused, match="aurastream archive ahead"):
        back.close_segments()


def test_a_server_that_has_lost_all_gets_all_of_its_archive_back(kept: Kept) -> None:
    """Several segments, in their order; what a producer has appended again by then comes once."""
    for start in (0, 20, 40):
        kept.stream.append(events(start, 20))
        kept.close_segments()
    kept.server.client.flushall()
    back = Kept(kept.server, kept.settings.archive, segment_events=1_000)
    back.stream.append(events(25, 3))

    numbers, appended = [], 0
    for segment in segments_ahead(back.archive(), 0):
        numbers.append(segment.number)
        appended += take_back(back.archive(), back.operations, segment, DECISION)

    assert (numbers, appended) == ([1, 2, 3], 57)
    ids = [entry.event.event_id for entry in back.stream.read(0)]
    due = [n for n in range(60) if n not in (25, 26, 27)]
    assert ids == [f"e{n}" for n in [25, 26, 27, *due]]
    assert [manifest.number for manifest in back.close_segments()] == [1]
    audited = audited_by(History(back.operations))
    assert verify_partition(back.stream, 0, back.archive(), audited).findings == []
