"""The parts of append.lua, each by its own contract, on every server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from redis.exceptions import ResponseError

from aurastream.streams import CHUNK, Keys, Server, appending
from aurastream.streams.appending import AppendAnswer, AppendHead
from aurastream.streams.index import collided_field_of, field_of, pack_position
from aurastream.streams.pressure import OVERHEAD_BYTES, Budget, join
from tests.facts import dump

KEYS = Keys("clips-test", 0)
NAMES = (KEYS.log, KEYS.ids, KEYS.meta, KEYS.versions, KEYS.entities, KEYS.groups)
FOLDER = Path(appending.__file__).parent / "append"
NEEDS = {
    "names": (),
    "places": (),
    "known": ("names", "places"),
    "versions": ("names",),
    "budget": ("names",),
    "entities": ("names", "places"),
}


def run(server: Server, part: str, body: str, *args: str | bytes | int, cursors: tuple[str, ...] = ()) -> Any:
    """What the body returns behind the part and what it needs; the body makes JSON of a table."""
    text = "".join((FOLDER / f"{name}.lua").read_text() for name in (*NEEDS[part], part))
    answer: Any = server.client.eval(text + body, len(NAMES) + len(cursors), *NAMES, *cursors, *args)
    return json.loads(answer) if isinstance(answer, bytes) and answer[:1] in b"{[" else answer


def unchanged(server: Server, before: Any) -> bool:
    return bool(dump(server) == before)


def json_of(event_id: str) -> bytes:
    return b'{"type":"t","event_id":"%b"}' % event_id.encode()


LOOK_UP = """
local fields, events = {}, {}
for i = 1, #ARGV, 2 do fields[#fields + 1], events[#events + 1] = ARGV[i], ARGV[i + 1] end
local new, positions, twins, duplicates = look_up(fields, events)
if not new then return cjson.encode(positions) end
local known, pairs_of = {}, {}
for i, position in pairs(positions) do known[tostring(i)] = position end
for i, twin in pairs(twins) do pairs_of[tostring(i)] = twin end
local last = string.match(fields[#fields], '^event_id=.*') or ''
return cjson.encode({new = new, known = known, twins = pairs_of, duplicates = duplicates, last = last})
"""


def look_up(server: Server, *event_ids: str, digest: bytes | None = None) -> Any:
    args = [part for name in event_ids for part in (digest or field_of(name), json_of(name))]
    return run(server, "known", LOOK_UP, *args)


def stored(server: Server, event_id: str, digest: bytes | None = None) -> str:
    """An entry and its row; the position."""
    position: bytes = server.client.xadd(KEYS.log, {"event": json_of(event_id), "crc32": "1"})  # type: ignore[assignment]
    server.client.hset(KEYS.ids, digest or field_of(event_id), pack_position(position))  # type: ignore[arg-type]
    return position.decode()


def test_the_answers_are_the_same_in_lua_and_in_python(server: Server) -> None:
    """A number that means something else on one side is an append that lies about what it did."""
    names = [member.name for member in AppendAnswer]
    answers = run(server, "names", f"return {{{', '.join(names)}}}")

    assert answers == [member.value for member in AppendAnswer]


def test_both_sides_hold_the_same_measures(server: Server) -> None:
    """A row of another length, or another overhead, would name wrong places and count wrong budgets."""
    assert run(server, "entities", "return CHUNK") == CHUNK
    assert run(server, "budget", "return OVERHEAD") == OVERHEAD_BYTES


@pytest.mark.parametrize(
    "position", ["0-1", "1764000000000-0", "1764000000000-999999999", "99999999999999-5", "123456789012345-1"]
)
def test_a_place_is_packed_as_in_python_and_comes_back(server: Server, position: str) -> None:
    """Both sides write rows of ids and of entities, and read each other's."""
    place: bytes = run(server, "places", "return packed(ARGV[1])", position)

    assert place == pack_position(position.encode())
    assert run(server, "places", "return unpacked(packed(ARGV[1]))", position) == position.encode()


def test_of_a_batch_what_is_new_what_repeats_and_what_is_there(server: Server) -> None:
    """The plan of every append; it may write nothing, as what comes after may still refuse."""
    position = stored(server, "e1")
    before = dump(server)

    plan = look_up(server, "e2", "e1", "e2", "e3")

    assert (plan["new"], plan["duplicates"]) == ([1, 4], [2, 3])
    assert (plan["known"], plan["twins"]) == ({"2": position}, {"3": 1})
    assert unchanged(server, before)


def test_two_ids_of_one_digest_are_told_apart_by_their_entries(server: Server) -> None:
    """A digest only finds a row: a collision that decided would lose an event."""
    digest = b"12345678"
    stored(server, "e1", digest)

    plan = look_up(server, "e2", digest=digest)

    assert (plan["new"], plan["duplicates"]) == ([1], {}), "an empty list is {} to cjson"
    assert plan["last"].encode() == collided_field_of("e2")


def test_a_row_whose_entry_is_gone_is_dangling(server: Server) -> None:
    """Nothing may be vouched for by an entry that somebody deleted."""
    position = stored(server, "e1")
    server.client.xdel(KEYS.log, position)

    assert look_up(server, "e1") == [AppendAnswer.DANGLING, "e1", position]


TOUCH = """
local names, versions, events = touch(cjson.decode(ARGV[1]), cjson.decode(ARGV[2]))
local refused = conflict(names, versions, cjson.decode(ARGV[3]))
return cjson.encode(refused or {names, versions, events})
"""


def test_versions_are_of_the_subjects_with_new_events(server: Server) -> None:
    """A duplicate changes no version, so its subject is neither counted nor asked."""
    server.client.hset(KEYS.versions, "a", 7)
    before = dump(server)

    touched = run(server, "versions", TOUCH, '["a","c","b","a"]', "[1,3,4]", '{"a":7,"c":5}')

    assert touched == [["a", "b"], [7, 0], [[1, 3], [2]]]
    assert unchanged(server, before)


def test_another_version_than_expected_is_a_conflict(server: Server) -> None:
    """Of two decisions on one state, one wins."""
    server.client.hset(KEYS.versions, "a", 7)

    refused = run(server, "versions", TOUCH, '["a"]', "[1]", '{"a":6}')

    assert refused == [AppendAnswer.CONFLICT, "a", "7"]


def test_a_version_that_is_no_number_raises_before_any_write(server: Server) -> None:
    """A row changed by hand must not become version 0."""
    server.client.hset(KEYS.versions, "a", "many")

    with pytest.raises(ResponseError, match="arithmetic on a nil"):
        run(server, "versions", TOUCH, '["a"]', "[1]", "{}")


BUDGET = """
local groups = {}
for i = 5, #ARGV do groups[#groups + 1] = ARGV[i] end
local budget = {events = tonumber(ARGV[1]), bytes = tonumber(ARGV[2])}
local refused, clear = over_budget(budget, groups, tonumber(ARGV[3]), tonumber(ARGV[4]))
return cjson.encode(refused or {clear = clear or 'as it is'})
"""


def weighed(
    server: Server, new: int, *groups: str, events: int = 0, size: int = 0, new_bytes: int = 0
) -> Any:
    cursors = tuple(KEYS.cursor(group) for group in groups)
    return run(server, "budget", BUDGET, events, size, new, new_bytes, *groups, cursors=cursors)


def joined(server: Server, group: str, read: int = 0) -> None:
    server.client.execute_command("EVAL", *_plain(join(KEYS, group)))
    server.client.hset(KEYS.cursor(group), mapping={"read": read, "read_bytes": 0})


def _plain(call: tuple[Any, ...]) -> tuple[Any, ...]:
    return ((FOLDER.parent / "join.lua").read_text(), *call[2:])


def test_what_fits_says_how_far_the_log_may_grow_without_asking(server: Server) -> None:
    """Asking every group at every append would cost more than the append."""
    joined(server, "slow")

    assert weighed(server, 3, "slow", events=10) == {"clear": f"10 0 10 {2**53}"}
    server.client.hset(KEYS.meta, "clear", f"10 0 10 {2**53}")
    assert weighed(server, 3, events=10) == {"clear": "as it is"}, "nobody is asked, not even who is known"


def test_a_group_a_budget_behind_is_named_with_how_far(server: Server) -> None:
    """The producer is told whom it waits for."""
    joined(server, "slow")
    joined(server, "quick", read=5)
    for number in range(5):
        stored(server, f"e{number}")
    before = dump(server)

    assert weighed(server, 1, "slow", "quick", events=5) == [AppendAnswer.FULL, "slow", 5, 5 * OVERHEAD_BYTES]
    assert unchanged(server, before)


def test_groups_that_the_caller_does_not_know_are_named(server: Server) -> None:
    """A group counts from the moment it joined, so an append that has not asked it is refused."""
    joined(server, "late")

    assert weighed(server, 1, events=5) == [AppendAnswer.REGROUP, "late"]
    assert weighed(server, 1, "late", "gone", events=5) == [AppendAnswer.REGROUP, "late"]


INDEX = """
local rows = {}
for i, position in ipairs(cjson.decode(ARGV[2])) do rows[2 * i] = packed(position) end
index_entities({ARGV[1]}, {tonumber(ARGV[3])}, {cjson.decode(ARGV[4])}, rows)
"""


def test_places_go_on_where_the_last_row_ends_and_rows_are_of_one_length(server: Server) -> None:
    """Place n - 1 is the event that made version n: one place off, and decisions read another's past."""
    positions = [f"1764000000000-{number}" for number in range(CHUNK + 4)]
    places = [pack_position(position.encode()) for position in positions]
    new = list(range(3, CHUNK + 5))
    server.client.hset(KEYS.entities, "a|0", b"".join(places[:2]))

    run(server, "entities", INDEX, "a", json.dumps(positions), 2, json.dumps(new))

    rows: Any = server.client.hgetall(KEYS.entities)
    assert rows == {b"a|0": b"".join(places[:CHUNK]), b"a|1": b"".join(places[CHUNK:])}
    assert server.client.hget(KEYS.versions, "a") == str(CHUNK + 4).encode()


def test_a_place_that_does_not_fit_has_a_row_of_its_own(server: Server) -> None:
    """A raw XADD may have made entries far in the future, and what is appended then comes after them."""
    position = "123456789012345-1"

    run(server, "entities", INDEX, "a", json.dumps([position]), 1, "[1]")

    rows: Any = server.client.hgetall(KEYS.entities)
    assert rows == {b"a|0": bytes(20), b"a|0|1": position.encode()}, "and version 0 is from before the index"


def test_the_head_is_what_the_servers_msgpack_reads(server: Server) -> None:
    """It knows no bytes, and numbers above 2^53 are none in Lua; text of every length comes whole."""
    subjects = ["a", "b" * 31, "c" * 32, "d" * 128]
    head = AppendHead(subjects, {"d" * 128: 2**53 - 1}, Budget(2**53 - 1, 0), ["g" * 64] * 20)

    read = server.client.eval(
        "return cjson.encode(cmsgpack.unpack(ARGV[1]))", 0, msgspec.msgpack.encode(head)
    )
    nothing = server.client.eval(
        "return #cjson.encode(cmsgpack.unpack(ARGV[1]))", 0, msgspec.msgpack.encode(AppendHead())
    )

    assert [len(subject) for subject in json.loads(read)["subjects"]] == [1, 31, 32, 128]  # type: ignore[arg-type]
    assert json.loads(read)["groups"] == ["g" * 64] * 20  # type: ignore[arg-type]
    assert nothing == len("{}")


def test_every_part_is_in_the_script_after_what_it_needs() -> None:
    """Lua would take a missing local for a global, and Redis refuses those only when they are reached."""
    text = appending.APPEND.text
    places = {name: text.index((FOLDER / f"{name}.lua").read_text()) for name in NEEDS}

    assert {path.stem for path in FOLDER.glob("*.lua")} == set(NEEDS)
    assert all(places[needed] < places[name] for name, needs in NEEDS.items() for needed in needs)
