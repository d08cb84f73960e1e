"""Tamper evidence: what was changed, dropped, exchanged or lost is named by partition and position; in a
directory and on S3.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from aurastream.streams import Position, Server, StreamError
from aurastream.streams.archive import history_of, signing
from aurastream.streams.archive import manifest as manifests
from aurastream.streams.archive.entries import entries_of
from aurastream.streams.archive.manifest import Manifest
from aurastream.streams.archive.segment import SCHEMA, identify, table_of, to_parquet
from aurastream.streams.archive.verify import Verified, audited_by, verify_partition
from tests.processors.importing.imports import seed_of_this_run
from tests.streams.archive.kept import Kept, append, plain, raw_add
from tests.streams.archive.places import Place, bucket, directory, s3_server

pytestmark = [pytest.mark.slow, pytest.mark.any_server, pytest.mark.timeout(400)]
Change = Callable[[pa.Table], pa.Table]


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, Any]]:
    with s3_server() as options:
        yield options


@pytest.fixture(params=["directory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return (
        directory(tmp_path / "archive")
        if request.param == "directory"
        else bucket(request.getfixturevalue("s3"))
    )


@pytest.fixture
def kept(server: Server, place: Place) -> Kept:
    """Three segments of 600, 600 and 300 entries; the first two blocks of 250 and one of 100."""
    kept = Kept(server, place.url, archive_options=place.options, segment_events=600)
    append(kept, 1_500)
    kept.close_segments()
    return kept


@pytest.fixture
def local(server: Server, tmp_path: Path) -> Kept:
    kept = Kept(server, tmp_path / "archive", segment_events=600)
    append(kept, 1_500)
    kept.close_segments()
    return kept


def verified(kept: Kept, key: Any = None) -> Verified:
    return verify_partition(kept.stream, 0, kept.archive(), audited_by(history_of(kept.operations)), key)


def problems(kept: Kept, key: Any = None) -> list[tuple[str, str, str]]:
    found = verified(kept, key).findings
    assert all((item.stream, item.partition) == ("clips-test", 0) for item in found)
    return [(item.position, item.until, item.problem) for item in found]


def path_of(kept: Kept, number: int, ending: str = "parquet") -> str:
    archive = kept.archive()
    return f"{archive.folder(0)}/{archive.segments(0)[number - 1].name}.{ending}"


def rewrite(kept: Kept, number: int, change: Change) -> None:
    """The same file with another table in it."""
    store, path = kept.archive().store, path_of(kept, number)
    table = pq.read_table(pa.BufferReader(store.read(path)))
    store.write(path, to_parquet(change(table).cast(SCHEMA)))


def with_value(table: pa.Table, column: str, row: int, value: Any) -> pa.Table:
    values = table[column].to_pylist()
    values[row] = value
    return table.set_column(
        table.schema.get_field_index(column), column, pa.array(values, SCHEMA.field(column).type)
    ).cast(SCHEMA)


def exchanged(table: pa.Table, one: int, other: int, keep: tuple[str, ...] = ()) -> pa.Table:
    order = list(range(len(table)))
    order[one], order[other] = other, one
    changed = table.take(pa.array(order))
    for name in keep:
        changed = changed.set_column(table.schema.get_field_index(name), name, table[name])
    return changed


def test_what_was_written_is_found_as_it_was(kept: Kept) -> None:
    """A verification that cries wolf is not looked at when it matters."""
    append(kept, 40, start=1_500)
    raw_add(kept, "a", "b")

    found = verified(kept)

    assert found.findings == []
    assert (found.segments, found.archived, found.live, found.both) == (3, 1_500, 1_541, 1_500)
    kept.trim(kept.log()[1_299][0].decode())
    found = verified(kept)
    assert found.findings == []
    assert (found.archived, found.live, found.both) == (1_500, 241, 200)


@pytest.mark.parametrize("part", ["fields", "position", "crc32", "footer"])
def test_a_flipped_byte_is_named(kept: Kept, part: str) -> None:
    """Disks change bytes; who restores has to know which file."""
    log = kept.log()
    kept.trim(log[-1][0].decode())
    store, path = kept.archive().store, path_of(kept, 2)
    content = bytearray(store.read(path))
    group = pq.ParquetFile(pa.BufferReader(bytes(content))).metadata.row_group(0)
    columns = {group.column(index).path_in_schema: group.column(index) for index in range(group.num_columns)}
    at = (
        len(content) - 40
        if part == "footer"
        else columns[part].data_page_offset + columns[part].total_compressed_size // 2
    )
    content[at] ^= 0x10
    store.write(path, bytes(content))

    found = problems(kept)

    assert len(found) >= 1
    first, last = log[600][0].decode(), log[1_199][0].decode()
    assert {(position, until) for position, until, _ in found} <= {
        (p.decode(), u.decode()) for p, _ in log[600:1200] for u, _ in [(p, 0)]
    } | {
        (first, last),
        (log[600][0].decode(), log[850][0].decode()),
        (log[850][0].decode(), log[1100][0].decode()),
        (log[1100][0].decode(), last),
    }


def test_no_flipped_byte_goes_unnoticed(local: Kept) -> None:
    """Wherever it is, in file or manifest; and what is named is in the segment whose file it is."""
    dice = random.Random(seed_of_this_run())
    log, store = local.log(), local.archive().store
    paths = [path_of(local, 2, ending) for ending in ("parquet", "json")]
    positions = [Position.parse(position) for position, _ in log[600:1_200]]

    for path in paths:
        content = store.read(path)
        for at in sorted({*dice.sample(range(len(content)), 60), len(content) - 1, 0}):
            store.write(
                path, content[:at] + bytes([content[at] ^ 1 << dice.randrange(8)]) + content[at + 1 :]
            )
            found = problems(local)
            assert found, at
            assert all(
                positions[0] <= Position.parse(position) <= Position.parse(until) <= positions[-1]
                for position, until, _ in found
            ), (at, found)
        store.write(path, content)
    assert problems(local) == []


@pytest.mark.parametrize("is_trimmed", [False, True])
def test_a_dropped_entry_is_named(kept: Kept, is_trimmed: bool) -> None:
    """A fact that is gone leaves no other trace than the hash."""
    log = kept.log()
    if is_trimmed:
        kept.trim(log[-1][0].decode())
    rewrite(kept, 2, lambda table: pa.concat_tables([table.slice(0, 300), table.slice(301)]))

    assert problems(kept) == [
        (log[900][0].decode(), log[900][0].decode(), "the entry is missing, or its position was changed")
    ]


@pytest.mark.parametrize("row", [0, 249, 250, 599])
def test_a_dropped_entry_at_the_edge_of_a_block_is_named(local: Kept, row: int) -> None:
    """There the neighbours are in two blocks, and only one of them has changed."""
    log = local.log()
    rewrite(local, 2, lambda table: pa.concat_tables([table.slice(0, row), table.slice(row + 1)]))

    assert problems(local) == [
        (
            log[600 + row][0].decode(),
            log[600 + row][0].decode(),
            "the entry is missing, or its position was changed",
        )
    ]


def test_an_added_entry_is_named(local: Kept) -> None:
    """Evidence that was put in later is as false as evidence that was removed."""
    log = local.log()

    def add(table: pa.Table) -> pa.Table:
        table = table.cast(SCHEMA)
        twin = with_value(table.slice(300, 1), "position", 0, table["position"][300].as_py() + "9")
        return pa.concat_tables([table.slice(0, 301), twin, table.slice(301)])

    rewrite(local, 2, add)

    assert [(position, problem) for position, _, problem in problems(local)] == [
        (log[900][0].decode() + "9", "the entry was added, or its position was changed")
    ]


def test_exchanged_entries_are_named(kept: Kept) -> None:
    """Count and positions are right then; only the order of contents tells."""
    log = kept.log()
    kept.trim(log[-1][0].decode())
    rewrite(kept, 1, lambda table: exchanged(table, 300, 301))

    assert [item[:2] for item in problems(kept)] == [(log[300][0].decode(), log[301][0].decode())]


def test_exchanged_contents_are_named(local: Kept) -> None:
    """Positions and checksums hold, and nothing else tells: the pair is found by trying."""
    log = local.log()
    local.trim(log[-1][0].decode())
    rewrite(local, 1, lambda table: exchanged(table, 300, 340, keep=("position", "appended_at")))

    assert [item[:2] for item in problems(local)] == [(log[300][0].decode(), log[340][0].decode())]
    assert "exchanged" in problems(local)[0][2]


def test_a_changed_event_is_named_by_its_own_checksum(kept: Kept) -> None:
    """The live log may have been trimmed: the archive must convict itself."""
    log = kept.log()
    kept.trim(log[-1][0].decode())
    rewrite(
        kept,
        3,
        lambda table: with_value(
            table, "fields", 7, table["fields"][7].as_py().replace('"views":1207', '"views":9999')
        ),
    )

    found = problems(kept)

    assert [item[:2] for item in found] == [(log[1_207][0].decode(), log[1_207][0].decode())]
    assert "its checksum does not hold" in found[0][2]


@pytest.mark.parametrize("is_trimmed", [False, True])
def test_a_changed_event_with_a_new_checksum_is_named_as_far_as_anything_tells(
    kept: Kept, is_trimmed: bool
) -> None:
    """By the live log the entry, else by the hashes the block of 250."""
    log = kept.log()
    if is_trimmed:
        kept.trim(log[-1][0].decode())
    rewrite(kept, 1, forged_views(310))

    found = problems(kept)

    block = (log[250][0].decode(), log[500][0].decode())
    assert [item[:2] for item in found] == [
        block if is_trimmed else (log[310][0].decode(), log[310][0].decode())
    ]


def forged_views(row: int) -> Change:
    """One event says another number, with a checksum that fits."""

    def change(table: pa.Table) -> pa.Table:
        raw, marks = entries_of(table)
        json = raw[row][1][1].replace(b'"views":%d' % row, b'"views":77777')
        from zlib import crc32

        raw[row] = (raw[row][0], [b"event", json, b"crc32", b"%d" % crc32(json)])
        return table_of(identify(raw), marks)

    return change


@pytest.mark.parametrize(
    ("column", "value"),
    [("is_duplicate", True), ("source", "somebody"), ("occurred_at", None), ("appended_at", None)],
)
def test_a_changed_column_is_named(local: Kept, column: str, value: Any) -> None:
    """An analyst reads the columns, not the entries."""
    log = local.log()
    local.trim(log[-1][0].decode())
    rewrite(local, 1, lambda table: with_value(table, column, 33, value))

    found = problems(local)

    assert [item[:2] for item in found] == [(log[33][0].decode(), log[33][0].decode())]
    assert column in found[0][2] or "duplicate" in found[0][2]


def test_a_file_written_anew_with_the_same_entries_is_told(local: Kept) -> None:
    """It is not the file that was vouched for, whatever it holds today."""
    store, path = local.archive().store, path_of(local, 1)
    sink = pa.BufferOutputStream()
    pq.write_table(pq.read_table(pa.BufferReader(store.read(path))), sink)
    store.write(path, bytes(sink.getvalue()))

    assert ["though all its entries are" in problem for _, _, problem in problems(local)] == [True]


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("what", ["both", "parquet", "json"])
def test_a_missing_segment_is_named(kept: Kept, number: int, what: str) -> None:
    """A gap must never read as a short history."""
    log = kept.log()
    kept.trim(log[-1][0].decode())
    paths = [path_of(kept, number, ending) for ending in ("json", "parquet") if what in ("both", ending)]
    for path in paths:
        kept.archive().store.delete(path)

    found = problems(kept)

    first, last = log[600 * (number - 1)][0].decode(), log[min(600 * number, 1_500) - 1][0].decode()
    assert [item[:2] for item in found] == [(first, last)]
    assert f"segment {number}" in found[0][2]


def test_the_last_segment_is_missed_though_the_slot_was_set_back(kept: Kept) -> None:
    """Whoever removes it changes the slot as well; the audit trail still has it."""
    log = kept.log()
    kept.trim(log[1_199][0].decode())
    second = kept.archive().segments(0)[1]
    for path in [path_of(kept, 3, ending) for ending in ("json", "parquet")]:
        kept.archive().store.delete(path)
    kept.server.client.hset(
        kept.keys.archive,
        mapping={"number": 2, "head": second.hash, "position": second.last, "entries": 1_200},
    )

    found = problems(kept)

    assert (log[1_200][0].decode(), log[-1][0].decode()) in [item[:2] for item in found]
    assert any("segment 3, which the audit trail names, is missing" in problem for _, _, problem in found)


def test_a_server_that_was_set_back_with_all_it_knows_is_told_by_the_archive(kept: Kept) -> None:
    """Log, slot and audit trail are an older copy's; the archive has what came after."""
    log = kept.log()
    second = kept.archive().segments(0)[1]
    for position, _ in log[1_200:]:
        kept.server.client.xdel(kept.keys.log, position)
    kept.server.client.hset(
        kept.keys.archive,
        mapping={"number": 2, "head": second.hash, "position": second.last, "entries": 1_200},
    )
    kept.server.client.xdel(kept.operations.keys[0].log, kept.operations.read(0)[-1].position)

    found = [
        (position, until)
        for position, until, problem in problems(kept)
        if "set back to an older copy" in problem
    ]

    assert found == [(log[1_200][0].decode(), log[-1][0].decode())]


def test_a_segment_that_was_never_committed_is_no_finding(local: Kept) -> None:
    """A killed archiver leaves files; they are nobody's history."""

    class Died(Exception):
        pass

    def die(step: str) -> None:
        if step == "manifest":
            raise Died

    append(local, 10, start=1_500)
    with pytest.raises(Died):
        local.close_segments(die)

    assert problems(local) == []


def forge(kept: Kept, number: int, change: Change, **facts: Any) -> None:
    """All a writer of the archive and the server can do: another content, its hashes, and those of every
    manifest after it.
    """
    archive = kept.archive()
    chain, previous = archive.segments(0), ""
    for manifest in chain:
        file = archive.store.read(f"{archive.folder(0)}/{manifest.name}.parquet")
        new = manifest
        if manifest.number == number:
            table = change(pq.read_table(pa.BufferReader(file)))
            raw, marks = entries_of(table)
            file = to_parquet(table)
            from hashlib import sha256

            new = msgspec.structs.replace(
                manifest,
                file_sha256=sha256(file).hexdigest(),
                file_bytes=len(file),
                blocks=list(manifests.blocks_of(raw, marks)),
                **facts,
            )
        new = msgspec.structs.replace(new, previous=previous, signature="")
        new = msgspec.structs.replace(new, hash=manifests.hash_of(new))
        for ending in ("json", "parquet"):
            archive.store.delete(f"{archive.folder(0)}/{manifest.name}.{ending}")
        archive.store.write(f"{archive.folder(0)}/{new.name}.parquet", file)
        archive.store.write(f"{archive.folder(0)}/{new.name}.json", manifests.encode(new))
        previous = new.hash
    kept.server.client.hset(kept.keys.archive, "head", previous)


def test_a_forged_chain_is_told_by_the_audit_trail_and_the_live_log(kept: Kept) -> None:
    """Who can write the folder can make hashes that fit each other."""
    log = kept.log()
    forge(kept, 2, lambda table: forged_views_at(table, 600 + 50))

    found = problems(kept)

    assert (
        log[650][0].decode(),
        log[650][0].decode(),
        "the live log's entry is not the one in segment 2",
    ) in found
    assert any("the audit trail says" in problem for _, _, problem in found)


def forged_views_at(table: pa.Table, number: int) -> pa.Table:
    raw, marks = entries_of(table)
    row = number % 600
    json = raw[row][1][1].replace(b'"views":%d' % number, b'"views":77777')
    from zlib import crc32

    raw[row] = (raw[row][0], [b"event", json, b"crc32", b"%d" % crc32(json)])
    return table_of(identify(raw), marks)


def test_counts_and_order_of_the_chain_must_add_up(local: Kept) -> None:
    """Progress, the trimmer and the audit all add these numbers."""
    local.server.client.delete(local.operations.keys[0].log)
    forge(local, 2, lambda table: table, entries_before=599)

    assert any("counts 599 entries before it, not 600" in problem for _, _, problem in problems(local))


@pytest.fixture
def key(tmp_path: Path) -> tuple[Path, Any]:
    private = Ed25519PrivateKey.generate()
    path = tmp_path / "key.pem"
    path.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (tmp_path / "public.pem").write_bytes(
        private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    return path, signing.verify_key(str(tmp_path / "public.pem"))


def test_a_signed_head_vouches_for_the_chain(server: Server, place: Place, key: tuple[Path, Any]) -> None:
    """Signing each run costs one signature, not one a segment."""
    kept = Kept(
        server, place.url, archive_options=place.options, segment_events=600, archive_signing_key=str(key[0])
    )
    append(kept, 700)
    kept.close_segments()

    assert problems(kept, key[1]) == []
    other = Ed25519PrivateKey.generate().public_key()
    assert [problem for _, _, problem in problems(kept, other)] == [
        f"segment {number} is signed by another key, or its signature was changed" for number in (1, 2)
    ]


def test_a_chain_forged_without_the_key_is_told_where_nothing_else_tells(
    server: Server, place: Place, key: tuple[Path, Any]
) -> None:
    """Server, audit trail and archive all say the same; only the key is not theirs."""
    kept = Kept(
        server, place.url, archive_options=place.options, segment_events=600, archive_signing_key=str(key[0])
    )
    append(kept, 700)
    kept.close_segments()
    last = kept.log()[-1][0].decode()
    kept.trim(last)
    server.client.delete(kept.operations.keys[0].log)
    forge(kept, 1, forged_views(310))

    assert problems(kept) == []
    assert [(until, problem) for _, until, problem in problems(kept, key[1])] == [
        (last, "segment 2, the newest, is not signed")
    ]


def test_a_key_of_another_kind_is_told(tmp_path: Path) -> None:
    """A key that does not fit must not pass for one that was not set."""
    (tmp_path / "none.pem").write_text("no key")

    with pytest.raises(StreamError, match="openssl genpkey"):
        signing.signing_key(str(tmp_path / "none.pem"))
    with pytest.raises(StreamError, match="AURASTREAM_ARCHIVE_VERIFY_KEY"):
        signing.verify_key(str(tmp_path / "absent.pem"))


def test_an_entry_deleted_by_hand_is_named_while_the_archive_has_it(local: Kept) -> None:
    """It can be put back only as long as somebody knows of it."""
    log = local.log()
    local.server.client.xdel(local.keys.log, log[700][0])

    found = problems(local)

    assert (log[700][0].decode(), log[700][0].decode()) in [item[:2] for item in found]
    assert any("1 entries of the live log are gone without the trimmer" in problem for _, _, problem in found)


def test_damage_of_the_live_log_is_named_and_known_damage_is_counted(local: Kept) -> None:
    """What was archived as damaged is history, not news."""
    raw_add(local, "event", b'{"x":1}', "crc32", "5")
    local.close_segments()
    later = raw_add(local, "event", b'{"x":2}', "crc32", "5").decode()

    found = verified(local)

    assert found.damaged == 1
    assert [(item.position, item.segment) for item in found.findings] == [(later, 0)]


def test_an_archive_ahead_of_its_log_is_told(local: Kept) -> None:
    """The server lost what it had acknowledged; the archive is the only witness."""
    local.server.client.delete(local.keys.log)

    assert any("ahead of the live log" in problem for _, _, problem in problems(local))


def test_an_archive_that_is_not_at_hand_is_not_called_sound(local: Kept) -> None:
    """Nothing was compared, so nothing may be vouched for."""
    found = verify_partition(local.stream, 0, None, {})

    assert [("was not checked" in item.problem, item.until) for item in found.findings] == [
        (True, local.log()[-1][0].decode())
    ]


def test_the_audit_trails_own_archive_may_be_damaged(local: Kept) -> None:
    """What the live log still says of the segments is used nevertheless."""
    from aurastream.streams.archive import open_archive
    from aurastream.streams.archive.archiver import Archiver

    archive = open_archive(local.settings, local.operations)
    assert archive is not None
    made = list(Archiver(archive, None).run(0))
    archive.store.delete(f"{archive.folder(0)}/{made[0].name}.parquet")

    assert sorted(audited_by(history_of(local.operations))["clips-test", 0]) == [1, 2, 3]


def test_entries_come_back_from_s3(kept: Kept) -> None:
    """Most archives are in a bucket, whose listings and errors differ from a directory's."""
    log = kept.log()
    kept.trim(log[1_000][0].decode())

    assert plain(kept.archived()) == log
    assert plain(entry for span in kept.history().spans(0) for entry in span.raw) == log
    wanted = [log[number][0].decode() for number in (3, 800, 1_400)]
    assert sorted(kept.history().entries(0, wanted)) == sorted(wanted)
    archive = kept.archive()
    archive.write_blob(0, "a", b"1")
    archive.write_blob(0, "b", b"2")
    archive.delete_blob(0, "a")
    archive.delete_blob(0, "a")
    assert (archive.list_blobs(0), archive.read_blob(0, "a"), archive.read_blob(0, "b")) == (
        ["b"],
        None,
        b"2",
    )


def manifest_of(kept: Kept, number: int) -> Manifest:
    return kept.archive().segments(0)[number - 1]


def test_a_changed_manifest_is_told(kept: Kept) -> None:
    """It says what is in the file: changed, it would excuse a changed file."""
    log = kept.log()
    store, path = kept.archive().store, path_of(kept, 2, "json")
    store.write(path, store.read(path).replace(b'"entries":600', b'"entries":601'))

    assert [item[:2] for item in problems(kept)] == [(log[600][0].decode(), log[1_199][0].decode())]


def test_the_columns_are_those_of_the_entries(local: Kept) -> None:
    """What is compared with the columns is made of the entries alone."""
    table = pq.read_table(pa.BufferReader(local.archive().store.read(path_of(local, 1))))

    assert pc.all(
        pc.equal(table["position"], table_of(identify(entries_of(table)[0]), ())["position"])
    ).as_py()
    assert manifest_of(local, 1).entries == len(table)
