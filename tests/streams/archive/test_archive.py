"""The archive: what was in the log comes back, byte for byte, each entry once."""

from __future__ import annotations

import random
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pandas
import pytest

from aurastream.projections import Consumer
from aurastream.streams import Position, Server, Settings, StreamError, open_stream
from aurastream.streams.archive import Where, building, lease, move, open_archive, ranges
from aurastream.streams.archive.archiver import Archiver
from aurastream.streams.archive.manifest import Block, Manifest
from aurastream.streams.archive.segment import identify
from aurastream.streams.entries import RawEntry
from aurastream.streams.errors import ArchiveDamaged, ArchiveRefused
from tests.facts import NOON, observation, raw_append
from tests.processors.importing.imports import seed_of_this_run
from tests.projections.counting import Counting
from tests.streams.archive.kept import Kept, any_entry, append, plain, raw_add


@pytest.fixture
def kept(server: Server, tmp_path: Path) -> Kept:
    return Kept(server, tmp_path / "archive", segment_events=1_000)


def test_what_was_archived_comes_back_byte_for_byte(kept: Kept) -> None:
    """Checksums, signatures and folds are over bytes."""
    append(kept, 2_500)

    made = kept.close_segments()

    assert [(item.number, item.entries) for item in made] == [(1, 1000), (2, 1000), (3, 500)]
    assert plain(kept.archived()) == kept.log()
    assert kept.told() == [("clips-test", 1), ("clips-test", 2), ("clips-test", 3)]
    assert [item.json_bytes for item in made] == [
        sum(len(fields[1]) for _, fields in kept.log()[a : a + 1000]) for a in (0, 1000, 2000)
    ]


@pytest.mark.parametrize("attempt", range(4))
@pytest.mark.slow
def test_entries_of_every_kind_come_back_byte_for_byte(server: Server, tmp_path: Path, attempt: int) -> None:
    """Raw, foreign, doubled, damaged, no event at all: the archive judges none of them, and cuts them
    anywhere.
    """
    dice = random.Random(f"{seed_of_this_run()} {attempt}")
    kept = Kept(server, tmp_path / "archive", segment_events=dice.choice([7, 60, 1000]))
    for number in range(300):
        any_entry(kept, dice, number)
        if dice.random() < 0.01:
            kept.close_segments()
    kept.close_segments()

    log = kept.log()
    assert plain(kept.archived()) == log
    assert plain(kept.archived(count=7)) == log
    for _ in range(20):
        low, high = sorted(dice.choices(log, k=2), key=lambda entry: Position.parse(entry[0]))
        inside = [
            entry
            for entry in log
            if Position.parse(low[0]) < Position.parse(entry[0]) <= Position.parse(high[0])
        ]
        assert plain(kept.archived(after=low[0].decode(), until=high[0].decode())) == inside
    chosen = [position.decode() for position, _ in dice.choices(log, k=40)]
    found = kept.archive().entries(0, [*chosen, "1-1", "99999999999999-0"])
    assert {name: plain([entry])[0] for name, entry in found.items()} == {
        p.decode(): (p, f) for p, f in log if p.decode() in chosen
    }


def test_archiving_again_adds_nothing(kept: Kept) -> None:
    """It runs from a timer, and after every kill."""
    append(kept, 1_500)
    kept.close_segments()
    before = kept.files(), kept.told()

    assert kept.close_segments() == []
    assert (kept.files(), kept.told()) == before


def test_a_segment_smaller_than_asked_for_is_left_in_the_log(kept: Kept) -> None:
    """Many small files cost every reader for ever."""
    append(kept, 1_300)

    assert [item.entries for item in kept.close_segments(min_events=400)] == [1000]
    assert kept.close_segments(min_events=400) == []
    assert [item.entries for item in kept.close_segments(min_events=300)] == [300]


def test_only_what_was_appended_before_a_time_is_closed(kept: Kept) -> None:
    """What is young may still be wanted in the log alone."""
    first = [raw_add(kept, "a", "b", position=f"{ms}-{n}") for ms in (1000, 2000) for n in range(3)][2]
    raw_add(kept, "a", "b", position="3000-0")

    made = kept.close_segments(until="1000")

    assert [(item.first, item.last) for item in made] == [("1000-0", "1000-2")]
    assert first == b"1000-2"


def test_a_run_ends_however_fast_producers_are(kept: Kept) -> None:
    """It closes what there was when it began."""
    append(kept, 10)

    def produce(step: str) -> None:
        if step == "committed":
            append(kept, 10, start=len(kept.log()))

    assert sum(item.entries for item in kept.close_segments(produce)) == 10


def test_heavy_entries_make_smaller_segments(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """A segment is held in memory, whatever its events weigh."""
    monkeypatch.setattr(building, "SEGMENT_BYTES_MAX", 100_000)
    monkeypatch.setattr(building, "READ_MAX", 10)
    for _ in range(50):
        raw_add(kept, "a", b"x" * 10_000)

    assert [item.entries for item in kept.close_segments()] == [10, 10, 10, 10, 10]
    assert plain(kept.archived()) == kept.log()


def test_no_column_says_what_another_one_says(kept: Kept) -> None:
    """An event of ours costs a tenth of its JSON."""
    append(kept, 1_000)
    made = kept.close_segments()[0]
    rows = duckdb.sql(f"select raw, is_whole, fields from '{kept.files_of('parquet')[0]}'").fetchall()

    assert all(raw is None and not whole and '"event_id"' not in fields for raw, whole, fields in rows)
    assert made.file_bytes < made.json_bytes / 8


def duplicates(kept: Kept) -> set[bytes]:
    return {position for span in kept.archive().spans(0) for position in span.duplicates or ()}


def test_an_id_that_is_in_the_log_twice_is_marked_where_views_count_it_once(
    kept: Kept, server: Server
) -> None:
    """After a trim nothing but the mark says which entry counts."""
    append(kept, 3)
    second = raw_append(server, kept.stream, observation(views=7, minute=0, event_id="e1"))
    raw_append(server, kept.stream, observation(views=8, minute=1, event_id="new"))
    fourth = raw_append(server, kept.stream, observation(views=9, minute=2, event_id="new"))

    kept.close_segments()

    assert duplicates(kept) == {second.encode(), fourth.encode()}


@pytest.mark.parametrize("consumes_first", [True, False])
def test_live_views_and_the_archive_agree_which_entry_counts(
    kept: Kept, server: Server, consumes_first: bool
) -> None:
    """A raw entry that nobody is canonical for is adopted by whoever comes first; the other one sees the
    row.
    """
    dice = random.Random(5)
    for number in range(200):
        any_entry(kept, dice, number)
    projection = Counting()

    def consume() -> None:
        Consumer(server, [projection], lambda: [kept.stream]).run(until_idle=True)

    (consume if consumes_first else kept.close_segments)()
    (kept.close_segments if consumes_first else consume)()

    cursor = server.client.hgetall(kept.keys.cursor(projection.name))
    marked = duplicates(kept)
    assert len(marked) >= int(cursor[b"duplicates"]) > 0
    rows = dict(server.client.hgetall(kept.keys.ids))
    kept.close_segments()
    assert dict(server.client.hgetall(kept.keys.ids)) == rows


def test_two_ids_with_one_digest_are_no_duplicates(
    kept: Kept, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index knows digests; a fact must not vanish because two of them are equal."""
    from aurastream.streams import appending as log
    from aurastream.streams.archive import duplicates as deciding

    for module in (log, deciding):
        monkeypatch.setattr(module, "field_of", lambda event_id: b"12345678")
    kept.stream.append([observation(event_id="e1"), observation(event_id="e2", minute=1)])
    raw_append(server, kept.stream, observation(event_id="e3", minute=2))
    again = raw_append(server, kept.stream, observation(event_id="e2", minute=3))

    kept.close_segments()

    assert duplicates(kept) == {again.encode()}


def test_duckdb_reads_the_segments_as_they_are(kept: Kept) -> None:
    """The archive outlives this product: any reader of Parquet has to do."""
    append(kept, 2_500)
    raw_append(kept.server, kept.stream, observation(views=1, event_id="e5"))
    kept.close_segments()

    rows = duckdb.sql(f"""
        SELECT subject, count(*) AS looks, max((fields ->> '$.views')::BIGINT) AS views,
            max(occurred_at) AS last_look
        FROM '{kept.settings.archive}/clips-test/*/*.parquet'
        WHERE type = 'clip.views_observed' AND NOT is_duplicate
        GROUP BY subject ORDER BY subject
    """).fetchall()

    assert [(row[0], row[1], row[2]) for row in rows] == [
        (f"clip-{n}", len(range(n, 2500, 7)), max(range(n, 2500, 7))) for n in range(7)
    ]
    assert rows[0][3] == NOON + timedelta(minutes=max(range(0, 2500, 7)))


def test_pandas_reads_the_segments_as_they_are(kept: Kept) -> None:
    """Where people analyse, it is often with this."""
    append(kept, 2_500)
    kept.close_segments()

    frame = pandas.concat(pandas.read_parquet(file) for file in kept.files_of("parquet"))
    views = frame["fields"].map(pandas.io.json.ujson_loads).map(lambda fields: fields["views"])

    assert list(views) == list(range(2_500))
    assert frame["occurred_at"].is_monotonic_increasing
    assert frame["appended_at"].dt.tz is not None
    assert [text.encode() for text in frame["position"]] == [position for position, _ in kept.log()]


def test_a_span_is_sound_only_where_every_checksum_was_right(kept: Kept) -> None:
    """A rebuild does not compute them again there; what is damaged must still be found damaged."""
    append(kept, 20)
    kept.close_segments()
    kept.server.client.xadd(kept.keys.log, {"event": b'{"type":"clip.views_observed"}', "crc32": "7"})
    append(kept, 20, start=20)
    kept.close_segments()

    spans = list(kept.archive().spans(0))

    assert [(len(span.raw), span.is_sound) for span in spans] == [(20, True), (21, False)]


READING = """
import sys
from datetime import UTC, datetime
from aurastream.streams import Server, Settings, open_stream
from aurastream.streams.archive import Where, history_of
settings = Settings(archive=sys.argv[2])
history = history_of(open_stream(Server(sys.argv[1]), "clips-test", settings=settings), settings)
(position, _), *_ = [entry for span in history.spans(0) for entry in span.raw]
assert history.archive.entries(0, [position.decode()])
long = {"since": datetime(2000, 1, 1, tzinfo=UTC), "until": datetime(2100, 1, 1, tzinfo=UTC)}
assert list(history.archive.scan(0, Where(subject="clip-3", **long)))
print("pandas" in sys.modules)
"""


@pytest.mark.slow
def test_reading_the_archive_does_not_wait_for_pandas(kept: Kept) -> None:
    """Where pandas is installed pyarrow imports it for the first value it is given: half a second of every
    look at the past.
    """
    append(kept, 100)
    kept.close_segments()

    done = subprocess.run(
        [sys.executable, "-c", READING, kept.server.url, str(kept.settings.archive)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.stdout, done.stderr) == ("False\n", "")


@pytest.mark.parametrize(
    "asked",
    [
        {"subject": "clip-3"},
        {"type": "clip.views_observed"},
        {"type": "none"},
        {"subject": "clip-3", "source": ""},
        {"correlation_id": "story-1"},
        {"since": NOON + timedelta(minutes=700)},
        {"until": NOON + timedelta(minutes=12)},
        {"subject": "clip-1", "since": NOON + timedelta(minutes=100), "until": NOON + timedelta(minutes=900)},
        {"since": NOON + timedelta(days=900)},
        {},
    ],
)
@pytest.mark.slow
def test_a_scan_gives_what_a_look_at_every_entry_would(kept: Kept, asked: dict[str, Any]) -> None:
    """Segments and row groups are skipped; entries are not."""
    append(kept, 1_500)
    dice = random.Random(3)
    for number in range(1_500, 1_700):
        any_entry(kept, dice, number)
    kept.stream.append([observation(event_id="of-a-story", correlation_id="story-1", source="poller")])
    kept.close_segments()

    found = [entry for span in kept.archive().scan(0, Where(**asked)) for entry in span.raw]

    assert plain(found) == [entry for entry in kept.log() if _fits(entry, asked)]


def _fits(entry: RawEntry, asked: dict[str, Any]) -> bool:
    envelope = identify([entry]).envelopes[0]
    if envelope is None or b"\xff" in b"".join(entry[1]):
        return not asked
    names = {"subject", "type", "source", "correlation_id"}
    equal = all(getattr(envelope, name) == value for name, value in asked.items() if name in names)
    return equal and asked.get("since", envelope.occurred_at) <= envelope.occurred_at < asked.get(
        "until", envelope.occurred_at + timedelta(1)
    )


@pytest.mark.slow
def test_a_scan_reads_only_the_row_groups_that_matter(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 25,000 entries in three row groups, the one look at a clip is had from one."""
    kept = Kept(server, tmp_path / "archive")
    kept.stream.append(
        [
            observation(views=n, minute=n, event_id=f"e{n}", clip="rare" if n == 12_345 else f"clip-{n % 7}")
            for n in range(25_000)
        ]
    )
    kept.close_segments()
    archive = kept.archive()
    file = archive.file_of(archive.segments(0)[0])
    whole: list[int] = []
    read = file.read_row_group
    monkeypatch.setattr(
        file,
        "read_row_group",
        lambda group, columns, **options: (
            whole.append(group) if len(columns) > 1 else None,
            read(group, columns=columns, **options),
        )[1],
    )

    spans = list(archive.scan(0, Where(subject="rare")))
    entry = kept.log()[20_001]
    found = archive.entries(0, [entry[0].decode()])

    assert [len(span.raw) for span in spans] == [1]
    assert plain(found.values()) == [entry]
    assert whole == [1, 2]


def test_segments_and_row_groups_outside_of_a_range_are_not_read(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A view of the past costs what its range holds, not what the archive holds."""
    append(kept, 3_000)
    kept.close_segments()
    log, archive = kept.log(), kept.archive()
    touched: list[tuple[int, int]] = []
    read = archive._read
    monkeypatch.setattr(
        archive,
        "_read",
        lambda segment, group, *more: (touched.append((segment.number, group)), read(segment, group, *more))[
            1
        ],
    )
    monkeypatch.setattr(
        archive,
        "_matching",
        lambda segment, group, where: (touched.append((segment.number, group)), ([], frozenset()))[1],
    )

    list(archive.spans(0, log[1_200][0].decode(), log[1_900][0].decode()))
    list(archive.scan(0, Where(until=NOON + timedelta(minutes=1_000))))
    list(archive.scan(0, Where(since=NOON + timedelta(minutes=2_000))))

    assert touched == [(2, 0), (1, 0), (3, 0)]


@pytest.mark.parametrize(
    ("low", "high", "groups"),
    [(0, 5, [0]), (10_000, 10_001, [1]), (9_998, 10_000, [0, 1]), (15_000, 25_000, [1, 2])],
)
def test_the_row_groups_of_a_range_are_known_from_the_manifest(
    low: int, high: int, groups: list[int]
) -> None:
    """So a look at a range opens no file that it does not need."""
    blocks = [Block(f"1-{250 * number}", 250, "", "") for number in range(100)]
    names = {"stream": "s", "first": "1-0", "last": "1-24999", "file_sha256": "", "previous": ""}
    counts = dict.fromkeys(
        ("partition", "number", "entries_before", "duplicates", "json_bytes", "file_bytes"), 0
    )
    manifest = Manifest(
        **names, **counts, entries=25_000, min_occurred_at=None, max_occurred_at=None, blocks=blocks
    )  # type: ignore[arg-type]

    assert list(ranges.groups_between(manifest, Position(1, low), Position(1, high))) == groups


def test_files_beside_the_segments_are_no_segments(kept: Kept) -> None:
    """Checkpoints live there, and people leave notes."""
    append(kept, 10)
    kept.close_segments()
    archive = kept.archive()

    archive.write_blob(0, "clips@3:100-1", b"state")
    archive.write_blob(0, "clips@3:100-1", b"newer")

    assert archive.read_blob(0, "clips@3:100-1") == b"newer"
    assert archive.read_blob(0, "other") is None
    assert archive.list_blobs(0, "clips@") == ["clips@3:100-1"]
    assert archive.list_blobs(0, "x") == []
    assert len(list(Path(kept.settings.archive).glob("clips-test/*/*.parquet"))) == 1
    with pytest.raises(StreamError, match="no name for a file"):
        archive.write_blob(0, "../x", b"")
    kept.close_segments()
    assert archive.read_blob(0, "clips@3:100-1") == b"newer"


def test_another_place_than_before_is_refused_until_the_files_are_there(
    kept: Kept, server: Server, tmp_path: Path
) -> None:
    """A chain in two places is in none."""
    import shutil

    append(kept, 1_500)
    kept.close_segments()
    other = Kept(server, tmp_path / "other", segment_events=1_000)
    append(kept, 10, start=1_500)

    with pytest.raises(ArchiveRefused, match="aurastream archive move"):
        other.close_segments()
    with pytest.raises(ArchiveDamaged, match="missing"):
        move(other.archive(), 0)
    shutil.copytree(kept.settings.archive, other.settings.archive)
    assert move(other.archive(), 0) == 2

    assert [item.number for item in other.close_segments()] == [3]
    assert plain(other.archived()) == kept.log()
    with pytest.raises(ArchiveRefused, match="aurastream archive move"):
        kept.close_segments()


def test_a_log_restored_from_an_older_copy_is_not_archived(kept: Kept, server: Server) -> None:
    """The archive has entries the log has lost: to go on would fork the chain."""
    append(kept, 30)
    kept.close_segments()
    server.client.delete(kept.keys.log)
    append(kept, 5, start=100)

    with pytest.raises(ArchiveRefused, match="neither in its log nor trimmed"):
        kept.close_segments()


def test_what_may_be_the_only_copy_is_never_removed(kept: Kept, server: Server) -> None:
    """A server restored from before the archiving knows nothing of the segments; their entries are nowhere
    else.
    """
    append(kept, 1_500)
    kept.close_segments()
    before = kept.files()
    server.client.flushall()
    again = Kept(server, kept.settings.archive, segment_events=1_000)
    append(again, 5)

    with pytest.raises(ArchiveRefused, match="restored from an older copy"):
        again.close_segments()
    assert kept.files() == before


def test_an_archiver_that_was_too_late_changes_nothing(kept: Kept) -> None:
    """Its lease ran out while it was stopped; another one has closed the segment meanwhile."""
    append(kept, 50)

    def other(step: str) -> None:
        if step == "manifest":
            append(kept, 10, start=50)
            kept.server.client.delete(kept.keys.lease("archive"))
            kept.close_segments()

    with pytest.raises(ArchiveRefused, match="another process"):
        kept.close_segments(other)

    assert plain(kept.archived()) == kept.log()
    assert [item.entries for item in kept.archive().segments(0)] == [60]
    kept.close_segments()
    assert len(kept.files()) == 2
    assert kept.told() == [("clips-test", 1)]


def test_an_archiver_that_wakes_up_in_time_finds_its_files(kept: Kept) -> None:
    """What it has not committed yet is nobody's to remove: the next one may die as well."""
    append(kept, 50)

    class Died(Exception):
        pass

    def dies(step: str) -> None:
        if step == "manifest":
            raise Died

    def other(step: str) -> None:
        if step == "file":
            append(kept, 10, start=50)
            kept.server.client.delete(kept.keys.lease("archive"))
            with pytest.raises(Died):
                kept.close_segments(dies)

    assert [item.entries for item in kept.close_segments(other)] == [50]
    assert plain(kept.archived()) == kept.log()[:50]
    assert [item.entries for item in kept.close_segments()] == [10]
    assert plain(kept.archived()) == kept.log()
    assert len(kept.files()) == 4


def test_two_archivers_that_made_the_same_segment_made_it_once(kept: Kept) -> None:
    """A lease may lapse while its owner still writes."""
    append(kept, 50)

    def other(step: str) -> None:
        if step == "file":
            kept.server.client.delete(kept.keys.lease("archive"))
            kept.close_segments()

    assert [item.number for item in kept.close_segments(other)] == [1]
    assert len(kept.files()) == 2
    assert plain(kept.archived()) == kept.log()


def test_the_second_of_two_archivers_is_told(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two at once would read and write everything twice."""
    monkeypatch.setattr(lease, "WAIT_MAX_S", 0.05)
    append(kept, 5)
    seen: list[str] = []

    def other(step: str) -> None:
        if step == "leased":
            with pytest.raises(ArchiveRefused, match="another process is archiving"):
                kept.close_segments()
            seen.append(step)

    kept.close_segments(other)
    assert seen == ["leased"]


def test_a_log_that_changed_under_the_archiver_is_not_committed(kept: Kept, server: Server) -> None:
    """A fail-over between reading and committing: the slot names only what its own log has."""
    append(kept, 50)

    def lose(step: str) -> None:
        if step == "manifest":
            server.client.xdel(kept.keys.log, kept.log()[-1][0])

    with pytest.raises(ArchiveRefused, match="no longer holds"):
        kept.close_segments(lose)
    assert kept.archive().until(0) == ""


def test_a_log_in_kafka_is_not_archived_here(server: Server, tmp_path: Path) -> None:
    """There is nothing of it in this server to close."""
    settings = Settings(partitions=1, archive=str(tmp_path))
    stream = open_stream(server, "elsewhere", create=True, settings=settings, log="kafka")
    archive = open_archive(settings, stream)

    assert archive is not None
    with pytest.raises(ArchiveRefused, match="in Kafka"):
        Archiver(archive, None)


def test_without_a_place_there_is_no_archive(kept: Kept) -> None:
    """It is an option, and who has none pays nothing for it."""
    assert open_archive(Settings(archive=""), kept.stream) is None


def test_segments_of_the_audit_trail_itself_are_no_events_of_it(kept: Kept) -> None:
    """Each would be one more entry to archive, for ever."""
    append(kept, 5)
    kept.close_segments()
    archive = open_archive(kept.settings, kept.operations)
    assert archive is not None

    assert [item.entries for item in Archiver(archive, None).run(0)] == [1]
    assert list(Archiver(archive, None).run(0)) == []
    assert kept.told() == [("clips-test", 1)]


def test_a_missing_file_is_an_error_and_never_a_gap(kept: Kept) -> None:
    """A fold over a gap is a wrong number that nobody doubts."""
    append(kept, 2_500)
    kept.close_segments()
    kept.files_of("parquet")[1].unlink()

    with pytest.raises(ArchiveDamaged, match=r"segment 2 of clips-test/0 .*missing"):
        kept.archived()
    kept.files_of("json")[0].unlink()
    with pytest.raises(ArchiveDamaged, match=r"segment 1 of clips-test/0 .*missing"):
        kept.archive().segments(0)


def test_a_flipped_byte_is_an_error_and_never_another_entry(kept: Kept) -> None:
    """Whatever a reader gets is what was written: hashing a file costs a hundredth of decoding it."""
    append(kept, 900)
    kept.close_segments()
    position, path = kept.log()[5][0].decode(), kept.files_of("parquet")[0]
    content, dice = path.read_bytes(), random.Random(seed_of_this_run())

    for at in dice.sample(range(len(content)), 50):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1 << dice.randrange(8)]) + content[at + 1 :])
        archive = kept.archive()
        for read in (
            lambda a: list(a.spans(0)),
            lambda a: list(a.scan(0, Where(subject="clip-1"))),
            lambda a: a.entries(0, [position]),
        ):
            with pytest.raises(ArchiveDamaged, match="its SHA-256 is"):
                read(archive)


def test_manifests_are_read_once_and_the_new_ones_when_there_are_any(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a bucket each is a request, and a chain has thousands."""
    append(kept, 2_500)
    kept.close_segments()
    archive = kept.archive()
    reads: list[str] = []
    read = archive.store.read
    monkeypatch.setattr(archive.store, "read", lambda path: (reads.append(path), read(path))[1])

    assert len(archive.segments(0)) == len(archive.segments(0)) == 3
    append(kept, 10, start=3_000)
    kept.close_segments()
    assert [item.number for item in archive.segments(0)] == [1, 2, 3, 4]

    assert len(reads) == 4
