"""
Row 15: a bit flipped in a stored event, anywhere in the AOF, and in every kind of key.

    150 events folded -> kill -> flip one bit of the AOF's increment -> start: refused | unchanged | changed,
        and then who says so

A flip that the server loads must not be silent: ``aurastream check`` (here its function) is red, an entry is
listed as dead once it is read, or the stream cannot be opened at all. The second half alters one value of
every kind of key by hand, so that each is tried, whatever the dice of the first half hit, and says which
kinds `check` (with streams/soundness.py) finds, which it need not find, and why; of the archive's slot,
`audit verify`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import redis

from aurastream.projections import check as check_views
from aurastream.streams import OPERATIONS, History, Server, Settings, Stream, StreamFacts, drive, open_stream
from aurastream.streams.archive import history_of, open_archive
from aurastream.streams.archive.archiver import Archiver
from aurastream.streams.archive.verify import audited_by, verify_partition
from aurastream.streams.keys import STREAMS
from aurastream.streams.leases import Claim, Leases
from aurastream.streams.soundness import unsound
from tests.faults.content import observed, raw_add
from tests.faults.disk import ALWAYS, Restored, increment_of, last_commit
from tests.faults.harness import Run, client_of, consume_all
from tests.faults.operators import fill
from tests.faults.producers import STREAM
from tests.faults.rows import row
from tests.invariants import Ack as Told
from tests.invariants import Held, check, check_acks, check_prefix, every_partition, held_by
from tests.projections.counting import Counting

LONG_FLIPS, SHORT_FLIPS = 300, 12
EVENTS = 160


@row(15, "a bit flipped in a stored event, anywhere in the AOF, in every kind of key", bound_s=90)
def a_flipped_bit_is_refused_or_named(run: Run) -> None:
    _in_the_aof(run)
    _in_every_kind_of_key(run)
    _in_the_slot_of_the_archive(run)


def _in_the_aof(run: Run) -> None:
    process = run.server(*ALWAYS)
    stream = run.stream(process.url, 1)
    fill(stream, 0, 150)
    consume_all(process.url)
    fill(stream, 150, EVENTS - 150)
    last_commit(stream)
    original = truth(held_by(run.client(process.url), STREAM, 0))
    process.kill()
    source = Path(process.directory) / "appendonlydir"
    content = increment_of(source).read_bytes()
    in_event = content.index(b'"event_id":"f77"') + 14
    random_places = [
        run.dice.randrange(len(content) * 8) for _ in range(LONG_FLIPS if run.is_long else SHORT_FLIPS)
    ]
    for place in (in_event * 8, *random_places):
        restored = Restored(run.binary, source, lambda path, place=place: _flip(path, place))
        try:
            if restored.is_up:
                _judge(run, restored.url, original, place, is_event=place == in_event * 8)
            else:
                run.count(refused=1)
                _fix_and_look(run, restored)
        finally:
            restored.stop()


def _flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place // 8] ^= 1 << place % 8
    path.write_bytes(content)


COUNTED = (
    "position",
    "read",
    "applied",
    "duplicates",
    "skipped",
    "dead",
    "quarantined",
    "checksum",
    "watermark",
)


def truth(held: Held) -> Any:
    """What must not change unnoticed: log, index, view, dead list, and of the cursor what decides. The rest
    are hints (below), or
    keys that nobody reads: what a commit wrote under another name, and the next one under the right one."""
    ours = ("ids", "view:counting:", "dead:counting")
    every = {**held.hashes, **held.rankings}
    cursor = {name: held.cursor.get(name, "0") for name in COUNTED}
    return held.log, {name: rows for name, rows in every.items() if name.startswith(ours)}, cursor


def _judge(run: Run, url: str, original: Any, place: int, *, is_event: bool) -> None:
    """Whether what is stored has changed, and who says so: the product, and the checker of the tests."""
    with client_of(url) as client:
        changed = _has_changed(client, original)
        ours = _checker_says(client) if changed else []
    product = product_finds(run, url) if changed else []
    run.count(**{"changed" if changed else "unchanged": 1})
    if changed and not product:
        seen = f"the checker of the tests says {ours[:3]}" if ours else "nor does the checker of the tests"
        run.complain(
            f"bit {place % 8} of byte {place // 8} changed what is stored, and `check` does not say so; "
            f"{seen}"
        )
    if is_event and not any("checksum" in sentence for sentence in product):
        run.complain(f"a bit flipped in a stored event is not named by its checksum: {product[:3]}")


def _has_changed(client: Any, original: Any) -> bool:
    try:
        helds = every_partition(client)
        return len(helds) != 1 or bool(truth(helds[0]) != original)
    except (ValueError, redis.RedisError, KeyError):
        return True  # unreadable


def _checker_says(client: Any) -> list[str]:
    try:
        helds = every_partition(client)
        sentences = [sentence for held in helds for sentence in check(held, group=None)]
        return (
            sentences
            + check_acks(helds, [Told(f"f{n}", "disk", "acked") for n in range(EVENTS)])
            + ([] if helds else ["no stream"])
        )
    except (ValueError, redis.RedisError, KeyError) as error:
        return [f"unreadable: {error}"]


def product_finds(run: Run, url: str) -> list[str]:
    """What the product says of a server: it refuses it, `check` is red, or an entry is listed as dead once it
    is read.
    """

    def ask(server: Server) -> list[str]:
        stream = open_stream(server, STREAM)
        sentences, before = _check_says(stream), _dead(server, stream)
        consume_all(url)
        return sentences + sorted(_dead(server, stream) - before)

    return _told(run, url, ask)


def _told(run: Run, url: str, ask: Callable[[Server], list[str]]) -> list[str]:
    """The answer, or the error, which is one too."""
    server = Server(url)
    try:
        return ask(server)
    except ValueError as error:  # of Python itself: loud, but no sentence; msgspec's are typed
        run.count(**{"no sentence": not isinstance(error, msgspec.MsgspecError)})
        return [f"{type(error).__name__}: {error}"]
    except Exception as error:
        if not isinstance(error, redis.RedisError) and not type(error).__module__.startswith("aurastream."):
            raise
        return [f"{type(error).__name__}: {error}"]
    finally:
        server.close()


def _check_says(stream: Stream) -> list[str]:
    sentences = []
    for result in check_views(stream, [Counting()]):
        sentences += result.complaints + [
            f"{item.table} {item.key}: {item.view} != {item.log}" for item in result.differences
        ]
    return sentences + list(unsound(history_of(stream)))


def _dead(server: Server, stream: Stream) -> set[str]:
    return {reason.decode() for keys in stream.keys for reason in server.client.hvals(keys.dead("counting"))}


def _fix_and_look(run: Run, restored: Restored) -> None:
    """redis-check-aof --fix (Debian's; Valkey reads the same files) cuts the file at the damage; what is left
    is a prefix.
    """
    if (tool := shutil.which("redis-check-aof")) is None:
        run.count(no_tool=1)
        return
    path = increment_of(Path(restored.directory) / "appendonlydir")
    subprocess.run([tool, "--fix", str(path)], input=b"y\n", capture_output=True, timeout=30, check=False)
    restored.start()
    if not restored.is_up:
        run.count(
            not_fixed=1
        )  # the tool calls the file valid: a command that does not exist, a value that is no number
        return
    with redis.Redis.from_url(restored.url) as client:
        held = held_by(client, STREAM, 0)
        sentences = check_prefix(held) if held.log else []
    run.count(fixed=1)
    run.complain(*[f"after --fix: {sentence}" for sentence in sentences])


# What need not be found when it changes, and why that is no silent harm.
HINTS = {
    "groups": "whom producers wait for: a group that is missing joins again, one too many is shown by "
    "`aurastream groups`",
    "lease": "saves work, decides nothing: a commit is compared with the cursor",
    "hosts": "who lives, what each can run and how often that changed: said again at every tick",
    "cards": "as hosts",
    "changes": "as hosts",
    "cursor moved_ms": "when it last moved, by which a still lane is known: written with every step",
    "meta": "counts: of what is missing at most too few are told, and XINFO's own count tells them where "
    "there is one",
    "cursor read_bytes": "what producers are held back by",
    "cursor name": "a field of another name reads as absent: as no fingerprint, which the next commit "
    "writes again; a count as 0, which is found",
    "cursor repairs": "how often a person put a row right",
}


def _in_every_kind_of_key(run: Run) -> None:
    """One value, one name, one score at a time: changed, judged, put back. In a stream as strangers leave it,
    and in one with versions.
    """
    seen: dict[str, list[bool]] = {}
    for versioned in (False, True):
        url = run.server().url
        client = run.client(url)
        stream = _with_every_key(run, url, client, versioned)
        for key in sorted(client.scan_iter("aura:*")):
            is_same = _reads_alike(client, key)
            for what, place, alter in _alterations(run, client, key):
                kind = f"{_kind_of(key.decode())}{place}"
                kept = client.dump(key)
                alter()
                if is_same(client):
                    client.restore(key, 0, kept, replace=True)
                    continue
                is_seen = bool(_check_says_or_refuses(run, url))
                seen.setdefault(kind, []).append(is_seen)
                run.count(altered=1)
                if not is_seen and kind not in HINTS and kind.partition(" ")[0] not in HINTS:
                    run.complain(f"{what} of {key.decode()} was changed, and `check` does not say so")
                client.restore(key, 0, kept, replace=True)
        if (left := _check_says(stream)) != []:
            run.complain(f"not everything was put back: {left[:3]}")
    run.count(**{f"{kind} found": looks.count(True) for kind, looks in seen.items()})
    run.count(**{f"{kind} not found": looks.count(False) for kind, looks in seen.items()})


def _in_the_slot_of_the_archive(run: Run) -> None:
    """How far the log is archived is what `audit verify` compares with the segments and with the audit
    trail.
    """
    url = run.server().url
    client = run.client(url)
    settings = Settings(partitions=1, archive=str(run.directory / "archive"))
    server = Server(url)
    run.on_end(server.close)
    stream = open_stream(server, STREAM, create=True, settings=settings)
    operations = open_stream(server, OPERATIONS, create=True, settings=settings)
    fill(stream, 0, 300)
    archive = open_archive(settings, stream)
    assert archive is not None
    list(Archiver(archive, operations).run(0))

    def verified() -> list[str]:
        verified_part = verify_partition(
            stream, 0, open_archive(settings, stream), audited_by(History(operations))
        )
        return [finding.problem for finding in verified_part.findings]

    if (problems := verified()) != []:
        run.complain(f"a sound archive does not verify: {problems}")
    for field in (b"number", b"position", b"entries", b"head"):
        for _ in range(20 if run.is_long else 2):
            kept = client.dump(stream.keys[0].archive)
            _alter_value(run, client, stream.keys[0].archive.encode(), field)
            if not _told(run, url, lambda server: verified()):
                run.complain(
                    f"{field.decode()} of the archive's slot was changed, and `audit verify` does not say so"
                )
            client.restore(stream.keys[0].archive, 0, kept, replace=True)
            run.count(archive_slot_found=1)


def _with_every_key(run: Run, url: str, client: Any, versioned: bool) -> Stream:
    """A lease, views of several tables, and either versions or the duplicates and dead entries that strangers
    append.
    """
    server = Server(url)
    run.on_end(server.close)
    stream = open_stream(server, STREAM, create=True, versioned=versioned, settings=Settings(partitions=2))
    stream.append(
        [observed(f"k{n}", subject=f"clip-{n % 5}", views=n, category=f"c{n % 2}") for n in range(60)]
    )
    if not versioned:
        raw_add(client, stream, b"{}")
        for entry in stream.read(0, count=3):
            raw_add(client, stream, stream.codec.encode(entry.event))
    consume_all(url)
    claims = [Claim("counting", STREAM, partition) for partition in range(2)]
    drive(Leases("keeper", 60_000).tick(claims), stream.wires.ask)
    return stream


def _reads_alike(client: Any, key: bytes) -> Callable[[Any], bool]:
    """Whether the registry still says the same but for when a stream was made: that is a hint, by which a
    processor begins that was never there.
    """
    if key != STREAMS.encode():
        return lambda client: False

    def said(client: Any) -> list[Any]:
        row = client.hget(key, STREAM) or b""
        facts = msgspec.json.decode(row, type=StreamFacts)
        return [msgspec.structs.replace(facts, created_ms=0), *msgspec.json.decode(row)]

    before = said(client)

    def is_same(client: Any) -> bool:
        try:
            return said(client) == before
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return False

    return is_same


def _kind_of(key: str) -> str:
    """What follows the tag, without names."""
    tail = re.sub(r"^aura:\{[^}]*\}:", "", key).removeprefix("aura:")
    return tail.split(":")[0]


def _alterations(run: Run, client: Any, key: bytes) -> list[tuple[str, str, Any]]:
    """Ways to change one thing under the key, as a flipped bit might: what, where within the kind, how."""
    kind = client.type(key)
    if kind == b"stream":
        parts = (("an entry's event", 1), ("an entry's checksum", 3))
        return [(what, "", lambda part=part: _alter_entry(run, client, key, part)) for what, part in parts]
    if kind == b"hash":
        fields = sorted(client.hkeys(key))
        is_cursor = b":cursor:" in key
        chosen = fields if is_cursor else run.dice.sample(fields, min(2, len(fields)))
        return [
            *(
                (
                    f"the value of {field!r}",
                    f" {field.decode()}" if is_cursor else "",
                    lambda field=field: _alter_value(run, client, key, field),
                )
                for field in chosen
            ),
            *(
                (
                    f"the name {field!r}",
                    " name" if is_cursor else "",
                    lambda field=field: _alter_name(run, client, key, field),
                )
                for field in chosen
            ),
        ]
    if kind == b"string":
        return [("the text", "", lambda: client.set(key, _flipped(run, client.get(key))))]
    member, score = run.dice.choice(client.zrange(key, 0, -1, withscores=True))
    renamed = _flipped(run, member)
    return [
        ("a score", "", lambda: client.zadd(key, {member: score + 1})),
        ("a member", "", lambda: (client.zrem(key, member), client.zadd(key, {renamed: score}))),
    ]


def _flipped(run: Run, value: bytes) -> bytes:
    """One bit; of the low four, so that digits and letters mostly stay what they are and JSON stays JSON."""
    places = [place for place, byte in enumerate(value) if chr(byte).isalnum()] or range(len(value))
    changed = bytearray(value or b"x")
    changed[run.dice.choice(list(places)) if value else 0] ^= 1 << run.dice.randrange(3)
    return bytes(changed)


def _alter_value(run: Run, client: Any, key: bytes, field: bytes) -> None:
    client.hset(key, field, _flipped(run, client.hget(key, field)))


def _alter_name(run: Run, client: Any, key: bytes, field: bytes) -> None:
    value = client.hget(key, field)
    client.hdel(key, field)
    client.hset(key, _flipped(run, field), value)


def _alter_entry(run: Run, client: Any, key: bytes, part: int) -> None:
    """The log anew, with one entry of it changed."""
    entries = client.execute_command("XRANGE", key, "-", "+")
    place = run.dice.randrange(len(entries))
    client.delete(key)
    for number, (position, fields) in enumerate(entries):
        pairs = (
            list(fields) if isinstance(fields, list) else [part for pair in fields.items() for part in pair]
        )
        if number == place:
            pairs[part] = _flipped(run, pairs[part])
        client.execute_command("XADD", key, position, *pairs)


def _check_says_or_refuses(run: Run, url: str) -> list[str]:
    return _told(run, url, lambda server: _check_says(open_stream(server, STREAM)))
