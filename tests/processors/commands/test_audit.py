"""The audit trail: who wrote what when, what led to it and what followed; by an index where there is one."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from msgspec.structs import replace

from aurastream.processors.effects import OPERATIONS, LetterPlace, list_letters, retry
from aurastream.processors.history.causation import DEPTH_MAX, Node, drawn, trees
from aurastream.processors.history.selection import Selection
from aurastream.processors.history.trails import AROUND_MAX, TrailRow, Trails
from aurastream.projections.built_in.trail import Trail
from aurastream.streams import Codec, Event, History, Server, Settings, Stream, open_stream
from tests.commands import Home, Nursery
from tests.facts import NOON, consume, observation, raw_append
from tests.processors.commands.test_replay_cli import line_of
from tests.processors.effects.outside import CODEC, Noting, failing, opened, work
from tests.servers import until
from tests.streams.archive.kept import Kept

pytestmark = [pytest.mark.process, pytest.mark.any_server]

EVIL = "\x1b[2J\u202e\x07"


@pytest.fixture
def streams(server: Server) -> Iterator[list[Stream]]:
    """Two streams, of three partitions and of one."""
    made = [
        open_stream(server, name, create=True, settings=Settings(partitions=count))
        for name, count in (("first", 3), ("second", 1))
    ]
    yield made
    for stream in made:
        stream.close()


def trails(*streams: Stream) -> Trails:
    return Trails([History(stream) for stream in streams])


def told(event_id: str, cause: str = "", story: str = "", *, clip: str = "", n: int = 0) -> Event:
    return observation(
        n,
        clip=clip or f"clip-{event_id}",
        event_id=event_id,
        minute=n,
        causation_id=cause,
        correlation_id=story,
    )


def ids(rows: Any) -> list[str]:
    return [row.event_id for row in rows]


def shape(nodes: list[Node]) -> list[Any]:
    """event_id, or [event_id, effects ..]."""
    return [
        [node.row.event_id, *shape(node.effects)] if node.effects else node.row.event_id for node in nodes
    ]


# By index.


def test_a_subjects_events_come_from_all_streams_in_order_up_to_the_logs_ends(
    server: Server, streams: list[Stream]
) -> None:
    """Whether the trail has read them or not."""
    first, second = streams
    for n in range(40):
        (first, second)[n % 2].append([told(f"e{n}", clip=f"clip-{n % 4 // 2}", n=n)])
        if n == 25:
            consume(server, first, Trail())
    found = trails(first, second)

    assert ids(found.of_subject("clip-1", Selection())) == [f"e{n}" for n in range(40) if n % 4 // 2 == 1]
    assert ids(found.of_subject("clip-1", Selection(since=NOON + timedelta(minutes=30)))) == [
        f"e{n}" for n in (30, 31, 34, 35, 38, 39)
    ]
    assert ids(found.of_subject("nobody", Selection())) == []


def test_a_subject_and_a_story_cost_the_same_in_a_log_ten_times_as_long(
    server: Server, streams: list[Stream]
) -> None:
    """Counted at the server: commands, not time."""
    first, second = streams
    costs = []
    for size in (500, 5_000):
        first.append([told(f"{size}-{n}", story=f"story-{size}-{n}", n=n % 60) for n in range(size)])
        second.append([told(f"rare-{size}", "cause", "rare", clip="rare")])
        consume(server, first, Trail())
        consume(server, second, Trail())
        server.client.config_resetstat()
        found = trails(first, second)
        list(found.of_subject("rare", Selection()))
        list(found.of_stories(["rare"]))
        stats = server.client.info("commandstats")
        costs.append(
            {
                name: facts["calls"]
                for name, facts in stats.items()
                if name in {"cmdstat_xrange", "cmdstat_evalsha"}
            }
        )
        assert found.tally.scanned == 0
    # One entry more was found by each of the two; nothing else grew.
    assert costs[1]["cmdstat_evalsha"] == costs[0]["cmdstat_evalsha"]
    assert costs[1]["cmdstat_xrange"] <= costs[0]["cmdstat_xrange"] + 2


def test_a_story_is_found_over_partitions_and_streams_with_its_first_cause(
    server: Server, streams: list[Stream]
) -> None:
    """The first cause belongs to no story of its own: its event ID is the story's name."""
    first, second = streams
    first.append([told("root"), told("other", story="else")])
    second.append([told("a", "root", "root"), told("b", "a", "root")])
    consume(server, first, Trail())
    consume(server, second, Trail())
    first.append([told("c", "b", "root", n=5)])  # not read by the trail yet

    found = trails(first, second)

    assert ids(found.of_correlations(Selection(correlations=frozenset({"root"})))) == ["root", "a", "b", "c"]
    assert ids(found.of_correlations(Selection(correlations=frozenset({"root"}), until=NOON))) == [
        "root",
        "a",
        "b",
    ]
    assert ids(found.of_stories(["else"])) == ["other"]


def test_what_was_appended_when_is_another_question_than_what_occurred_when(
    server: Server, streams: list[Stream]
) -> None:
    """By the position's clock, for a first cause, for what the trail has read and for what it has not."""
    _, second = streams
    moments = []
    for batch in (["root"], ["a"], ["b"], ["c"]):
        second.append(
            [
                told(name, "root" if name != "root" else "", "root" if name != "root" else "", clip="clip-1")
                for name in batch
            ]
        )
        if batch == ["a"]:
            consume(server, second, Trail())
        seconds, micros = server.client.time()
        moments.append(datetime.fromtimestamp(seconds + micros / 1e6, UTC))
        until(lambda: server.client.time() > (seconds, micros + 2_000), "the clock to go on")  # noqa: B023
    found = trails(second)
    chosen = Selection(since=moments[0], until=moments[2], by="appended")

    assert ids(found.of_subject("clip-1", chosen)) == ["a", "b"]
    assert ids(found.of_correlations(replace(chosen, correlations=frozenset({"root"})))) == ["a", "b"]


@pytest.mark.parametrize("story", ["clip|0", "a b", "{x}", "…" * 500, "x" * 129, EVIL])
def test_a_story_may_have_any_name(server: Server, streams: list[Stream], story: str) -> None:
    """A correlation_id is any text of up to 1,000 characters; some read like another story's row."""
    first, _ = streams
    first.append([told(f"plain-{n}", story="clip", n=n % 60) for n in range(40)])
    first.append([told("odd", story=story)])
    consume(server, first, Trail())

    found = trails(first)

    assert ids(found.of_stories([story])) == ["odd"]
    assert len(list(found.of_stories(["clip"]))) == 40


def test_an_entry_that_is_gone_or_damaged_is_named_and_not_left_out(
    server: Server, streams: list[Stream]
) -> None:
    """Silence would hide what an audit is for."""
    _, second = streams
    placed = [item.position for item in second.append([told(f"e{n}", clip="clip-1", n=n) for n in range(4)])]
    consume(server, second, Trail())
    server.client.xdel(second.keys[0].log, placed[1])

    rows = list(trails(second).of_subject("clip-1", Selection()))

    assert [row.position for row in rows] == placed
    assert [row.damage for row in rows] == ["", "the entry is gone from the log", "", ""]


def test_a_trail_of_another_definition_is_not_trusted(server: Server, streams: list[Stream]) -> None:
    """A trail of before the stories has none: what it does not list may be there all the same."""
    first, _ = streams
    first.append([told("root"), told("a", "root", "root")])
    consume(server, first, Trail())
    for partition in range(3):
        keys = first.keys[partition]
        server.client.delete(keys.view("trail", 1, "stories"))
        server.client.hset(keys.cursor("trail"), "fingerprint", "an older one")

    assert ids(trails(first).of_stories(["root"])) == ["root", "a"]
    assert ids(trails(first).of_subject("clip-a", Selection())) == ["a"]


def test_archived_entries_are_part_of_the_audit_and_their_first_causes_too(
    server: Server, tmp_path: Path
) -> None:
    """Trimmed, a first cause has no row of the ids index any more: it is found among its subject's archived
    events.
    """
    kept = Kept(server, tmp_path / "archive")
    kept.stream.append([told(f"x{n}", clip="clip-1", n=n % 60) for n in range(700)])
    kept.stream.append([told("root", clip="clip-1", n=1), told("a", "root", "root", clip="clip-1", n=2)])
    last = kept.stream.append([told("b", "a", "root", clip="clip-2", n=3)])[0].position
    kept.stream.append([told("c", "b", "root", clip="clip-2", n=4)])
    consume(server, kept.stream, Trail())
    before = list(trails(kept.stream).of_subject("clip-1", Selection()))
    kept.close_segments(until=last)
    kept.trim(last)
    found = Trails([kept.history()])

    assert list(found.of_subject("clip-1", Selection())) == before
    assert shape(trees(found.around(found.of_event("c"))[0])) == [["root", ["a", ["b", "c"]]]]
    assert ids(found.of_correlations(Selection(correlations=frozenset({"root"})))) == ["root", "a", "b", "c"]
    assert found.tally.scanned == 0
    assert ids(found.of_event("root")) == ["root"]  # by reading everything, and it says so
    assert found.tally.scanned > 0


# What led to what.


def test_a_tree_goes_from_the_first_cause_to_the_last_effect_wherever_it_is_asked(
    server: Server, streams: list[Stream]
) -> None:
    """Across partitions and streams, by correlation or by causation alone."""
    first, second = streams
    first.append([told("root"), told("lonely")])
    second.append([told("a", "root", "root"), told("b", "root", "root")])
    first.append([told("a1", "a", "root"), told("a2", "a", "root")])
    second.append([told("plain"), told("p1", "plain")])
    first.append([told("p2", "p1"), told("p3", "p2")])
    expected = {
        **{name: [["root", ["a", "a1", "a2"], "b"]] for name in ("root", "a", "b", "a1", "a2")},
        **{name: [["plain", ["p1", ["p2", "p3"]]]] for name in ("plain", "p1", "p2", "p3")},
        "lonely": ["lonely"],
    }
    for is_read in (False, True):
        if is_read:
            consume(server, first, Trail())
            consume(server, second, Trail())
        for event_id, tree in expected.items():
            found = trails(first, second)
            rows, is_cut = found.around(found.of_event(event_id))
            assert (shape(sorted_tree(trees(rows))), is_cut) == (tree, False), event_id


def sorted_tree(nodes: list[Node]) -> list[Node]:
    """Partitions of one millisecond may be in either order."""
    for node in nodes:
        node.effects = sorted_tree(node.effects)
    return sorted(nodes, key=lambda node: node.row.event_id)


def test_a_processors_story_has_its_effects_its_dead_letters_and_what_persons_decided(server: Server) -> None:
    """From the observation to the note, and to the retry of the one that failed."""
    stream = opened(server)
    stream.append([observation(event_id="good"), observation(1, minute=1, clip="clip-2", event_id="bad")])
    work(server, Noting(failing("bad")))
    operations = open_stream(server, OPERATIONS, codec=CODEC, create=True)
    letter = next(iter(list_letters(stream, "noting")))
    retry(
        stream, operations, LetterPlace("noting", letter.partition, letter.position), "the platform is back"
    )
    work(server, Noting())
    notes = open_stream(server, "notes", codec=CODEC)
    for each in (stream, operations, notes):
        consume(server, each, Trail())

    found = trails(stream, notes, operations)
    rows, _ = found.around(found.of_subject("clip-2", Selection()))
    (root,) = trees(rows)

    assert root.row.event_id == "bad"
    assert [node.row.event["type"] for node in root.effects] == [
        "effect.parked",
        "effect.retried",
        "test.clip_noted",
    ]
    assert root.effects[1].row.event["why"] == "the platform is back"


def row(event_id: str, cause: str = "", position: int = 0) -> TrailRow:
    event = {"event_id": event_id, **({"causation_id": cause} if cause else {})}
    return TrailRow("s", 0, f"{position}-0", event)


def test_an_effect_whose_cause_is_not_here_is_a_root_that_says_so() -> None:
    """A tree that hides a missing cause would claim that nothing led to the event."""
    (root,) = trees([row("b", "a")])
    assert (root.row.event_id, root.note) == ("b", "its cause a is not here")


def test_a_circle_of_causes_is_shown_once_and_named() -> None:
    """No producer should, any producer may."""
    roots = trees([row("a", "c"), row("b", "a"), row("c", "b"), row("self", "self")])
    assert shape(roots) == [["c", ["a", "b"]], "self"]
    assert [root.note for root in roots] == [
        "its cause b is one of its effects",
        "its cause self is one of its effects",
    ]


def test_a_chain_that_is_too_deep_goes_on_in_a_tree_of_its_own() -> None:
    """No JSON reader nests without end, and nothing of the chain may be lost."""
    rows = [row(f"e{n}", f"e{n - 1}" if n else "") for n in range(3 * DEPTH_MAX + 5)]
    roots = trees(rows)
    assert [root.row.event_id for root in roots] == [f"e{n * DEPTH_MAX}" for n in range(4)]
    assert [root.note.split(",")[0] for root in roots[1:]] == [
        f"goes on from e{n * DEPTH_MAX - 1}" for n in (1, 2, 3)
    ]
    json.dumps([root.plain() for root in roots])


def test_every_row_is_in_the_trees_once_whatever_points_where() -> None:
    """Circles and doubles come from raw writes; an event shown twice would be counted twice by a reader."""
    seed = int(os.environ.get("AURASTREAM_TEST_SEED", random.randrange(10**6)))
    print(f"seed {seed}")
    dice = random.Random(seed)
    for _ in range(300):
        count = dice.randrange(1, 30)
        rows = [row(f"e{n}", dice.choice(("", f"e{dice.randrange(count + 3)}")), n) for n in range(count)]
        roots = trees(rows)
        assert sorted(node.row.event_id for _, node in drawn(roots)) == sorted(one.event_id for one in rows)


def test_what_two_streams_hold_is_in_the_tree_twice_under_one_cause() -> None:
    """A replayed event is another entry of the same fact; both are shown, neither hides the other."""
    rows = [row("a"), TrailRow("copy", 0, "1-0", {"event_id": "a"}), row("b", "a")]
    assert shape(trees(rows)) == [["a", "b"], "a"]


def test_a_story_without_end_is_cut_and_says_so(server: Server, streams: list[Stream]) -> None:
    """An answer has a bound, and a person must know that he sees a part."""
    first, _ = streams
    first.append([told(f"e{n}", story="long", clip="clip-1", n=n % 60) for n in range(AROUND_MAX + 50)])
    consume(server, first, Trail())
    found = trails(first)
    rows, is_cut = found.around(found.of_event("e7"))
    assert (len(rows), is_cut) == (AROUND_MAX, True)


# The command.


@pytest.fixture(scope="module")
def world(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home whose stream clips has a story over several subjects, one of them called verify."""
    home = Home(nursery, tmp_path_factory.mktemp("world") / "home")
    try:
        home.hold()
        lines = [
            line_of(
                n,
                source=f"poller@host:{n % 2}" if n < 10 else "pollerino",
                **({"correlation_id": "e0", "causation_id": f"e{n - 1}"} if 0 < n < 4 else {}),
            )
            for n in range(20)
        ]
        lines.append(line_of(20, subject="verify", title=EVIL, creator="somebody"))
        assert home.run("append", "--stream", "clips", stdin="\n".join(lines)).code == 0
        assert home.run("run", "--until-idle").code == 0
        yield home
    finally:
        home.close()


def asked(world: Home, *arguments: str) -> list[str]:
    return [row["event_id"] for row in world.run("audit", *arguments, "--json").json()]


def test_each_question_has_its_answer(world: Home) -> None:
    """The questions are promised in --help, each with its index or without."""
    assert asked(world, "clip-3") == ["e3", "e10", "e17"]
    assert asked(world, "clip-3", "--last", "2") == ["e10", "e17"]
    assert asked(world, "clip-3", "--until", "2026-04-15T12:00:10Z") == ["e3", "e10"]
    assert asked(world, "--correlation", "e0") == sorted(
        ["e0", "e1", "e2", "e3"], key=asked(world, "--correlation", "e0").index
    )
    assert set(asked(world, "--correlation", "e0")) == {"e0", "e1", "e2", "e3"}
    assert set(asked(world, "--source", "poller")) == {f"e{n}" for n in range(10)}
    assert set(asked(world, "--source", "poller@host:1", "--since", "2026-04-15T12:00:05Z")) == {
        "e5",
        "e7",
        "e9",
    }
    assert set(asked(world, "--type", "clip.views_observed")) == {f"e{n}" for n in range(21)}
    assert asked(world, "clip-3", "--source", "pollerino") == ["e10", "e17"]
    assert asked(world, "--subject", "verify") == ["e20"]
    assert world.run("audit", "--subject", "verify", "--json").json()[0]["title"] == EVIL  # sealed in the log
    assert world.run("audit", "verify", "--json").json() is not None


def test_a_tree_is_drawn_and_nested(world: Home) -> None:
    """People see lines, programs nested JSON; both are the same tree."""
    drawn_ = world.run("audit", "--event", "e2", "--tree").out.splitlines()
    nested = world.run("audit", "--event", "e2", "--tree", "--json").json()

    assert [line.index("2026") for line in drawn_] == [0, 3, 6, 9]
    assert [next(word for word in line.split() if word in {"e0", "e1", "e2", "e3"}) for line in drawn_] == [
        "e0",
        "e1",
        "e2",
        "e3",
    ]
    (root,) = nested
    assert root["effects"][0]["effects"][0]["effects"][0]["event"]["event_id"] == "e3"
    assert root["event"]["stream"] == "clips"


def test_no_text_of_the_log_commands_the_terminal(world: Home) -> None:
    """Titles are written by strangers: an escape sequence in one must stay text."""
    for arguments in (
        ("--subject", "verify"),
        ("--subject", "verify", "--tree"),
        (EVIL,),
        ("--event", EVIL),
        ("--correlation", EVIL),
    ):
        done = world.run("audit", *arguments)
        assert not set("\x1b\u202e\x07") & set(done.out + done.err), arguments


def test_what_operators_did_is_listed_with_who_when_and_why(world: Home) -> None:
    """Every command that changes something leaves an event; without a question the audit is about them."""
    first = world.run("audit", "--json")  # what tests that came before this one did; 1: nothing yet
    before = len(first.json()) if first.code == 0 else 0
    world.run("groups", "forget", "trail", "--stream", "clips", "--why", "a drill")
    world.run("replay", "--stream", "clips", "--into", "stream:replay.audited", "--why", "to see")

    rows = world.run("audit", "--json").json()[before:]
    shown = world.run("audit").out

    assert [(row["type"], row["subject"], row["why"]) for row in rows] == [
        ("group.forgotten", "trail", "a drill"),
        ("log.replayed", "clips", "to see"),
    ]
    assert all("@" in row["source"] and row["occurred_at"] for row in rows)
    for words in (
        ("group forgotten", "trail", "a drill"),
        ("log replayed", "clips", "to see", "into=replay.aud"),
    ):
        assert any(all(word in line for word in words) for line in shown.splitlines()), shown
    assert rows == world.run("audit", "--stream", "operations", "--json").json()[before:]


def test_a_replay_is_no_part_of_the_audit_unless_it_is_named(world: Home) -> None:
    """Else every fact would be there twice."""
    world.run("replay", "--stream", "clips", "--into", "stream:replay.more")
    assert asked(world, "clip-3") == ["e3", "e10", "e17"]
    assert asked(world, "clip-3", "--stream", "replay.more") == ["e3", "e10", "e17"]


def test_what_has_no_index_says_that_it_read_everything(nursery: Nursery, tmp_path: Path) -> None:
    """A slow question should teach which one is quick."""
    home = Home(nursery, tmp_path / "home")
    try:
        home.hold()
        home.run("append", stdin="\n".join(line_of(n, source="w") for n in range(1_200)))
        home.run("run", "--until-idle")
        done = home.run("audit", "--source", "w", "--last", "3")
        assert "1,200 entries were read one by one" in done.err
        assert "the last 3 events" in done.out
        assert home.run("audit", "clip-1").err == ""
    finally:
        home.close()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("nobody",), 1, ["no event of 'nobody' is in clips"]),
        (("--event", "none"), 1, ["no event 'none'"]),
        (("--correlation", "none"), 1, ["no such event"]),
        (("clip-1", "--event", "e1"), 2, ["leave the other questions out"]),
        (("--since", "soon"), 2, ["ISO 8601", "--since"]),
        (("--last", "0"), 2, ["--last"]),
        (("clip-1", "--stream", "nope"), 2, ["no stream 'nope'"]),
    ],
)
def test_what_is_not_there_is_told(
    world: Home, arguments: tuple[str, ...], code: int, words: list[str]
) -> None:
    """Nothing found is an answer with an exit code, never an empty success."""
    done = world.run("audit", *arguments)
    assert (done.code, done.out, done.err.count("\n")) == (code, "", 1), done
    assert [word for word in words if word not in done.err] == []


def test_an_unknown_event_type_is_part_of_the_trail(server: Server, streams: list[Stream]) -> None:
    """This build need not have the class: the envelope says what the audit asks."""
    _, second = streams

    class Removed(Event, frozen=True, kw_only=True, tag="stranger.removed"):
        by: str

    raw = Codec((Removed,)).encode(
        Removed(event_id="r", subject="clip-1", occurred_at=NOON, by="them", causation_id="e0")
    )
    second.append([told("e0", clip="clip-1")])
    server.client.xadd(second.keys[0].log, {"event": raw, "crc32": crc32(raw)})
    raw_append(server, second, told("e0", clip="clip-1"))
    consume(server, second, Trail())

    found = trails(second)
    assert ids(found.of_subject("clip-1", Selection())) == ["e0", "r"]
    assert shape(trees(found.around(found.of_event("e0"))[0])) == [["e0", "r"]]
