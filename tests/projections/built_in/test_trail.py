"""The audit trail by subject, and the imports view: every event of the log is somewhere, in order, and named
by its position.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from zlib import crc32

import msgspec
import pytest

from aurastream.projections import MemoryView, View
from aurastream.projections.built_in.clips import Clips
from aurastream.projections.built_in.imports import Import, Imports
from aurastream.projections.built_in.trail import Known, Subject, Trail, known_of_stories, known_of_subject
from aurastream.projections.tables import LISTING_CHUNK
from aurastream.streams import (
    ClipViewsObserved,
    Codec,
    Event,
    ImportFinished,
    ImportRowRejected,
    Server,
    Settings,
    Stream,
    open_stream,
)
from tests.facts import NOON, consume, dump, findings, observation, raw_append


class ClipRemoved(Event, frozen=True, kw_only=True, tag="stranger.clip_removed"):
    """A stranger's event, of which this build has no class."""

    by: str


def removed(clip: str = "clip-1", *, event_id: str = "r1", by: str = "moderator") -> ClipRemoved:
    return ClipRemoved(event_id=event_id, subject=clip, occurred_at=NOON, by=by)


def foreign_append(server: Server, stream: Stream, event: Event) -> str:
    """Appended by a process that has the class."""
    raw = Codec((type(event),)).encode(event)
    return server.client.xadd(
        stream.keys[stream.partition_of(event.subject)].log, {"event": raw, "crc32": crc32(raw)}
    ).decode()


# The trail.


def test_the_trail_of_a_subject_is_its_positions_in_the_order_of_the_log(
    server: Server, stream: Stream
) -> None:
    """Not in the order of event time: the trail says what was written when, and late facts are facts."""
    placed = stream.append([observation(n, minute=50 - n, clip=f"clip-{n % 2}") for n in range(50)])
    consume(server, stream, Trail(), batch_max=7)
    view = View(stream, Trail())

    for odd in (0, 1):
        assert view.listing("positions", f"clip-{odd}").rows == {
            0: [item.position for item in placed[odd::2]]
        }
        assert view.state(f"clip-{odd}") == Subject(25, {"clip.views_observed": 25})


@pytest.mark.parametrize(
    "count", [1, LISTING_CHUNK - 1, LISTING_CHUNK, LISTING_CHUNK + 1, 3 * LISTING_CHUNK + 2]
)
def test_a_long_trail_is_full_rows_that_never_change_and_an_open_end(
    server: Server, stream: Stream, count: int
) -> None:
    """Rows of 16, so that one more event of an old subject writes one short row and not its whole history."""
    placed = [item.position for item in stream.append([observation(n, minute=n) for n in range(count)])]
    consume(server, stream, Trail(), batch_max=5)

    rows = {
        key: msgspec.json.decode(raw)
        for key, raw in View(stream, Trail()).tables("positions")[0][1][0].items()
    }
    full, rest = divmod(count, LISTING_CHUNK)
    expected = {f"clip-1|{n}": placed[n * LISTING_CHUNK : (n + 1) * LISTING_CHUNK] for n in range(full)}
    assert rows == {**expected, "clip-1": {"stored": full, "tail": placed[count - rest :]}}

    more = [
        item.position
        for item in stream.append([observation(n, minute=count + n) for n in range(LISTING_CHUNK)])
    ]
    consume(server, stream, Trail())

    after = View(stream, Trail()).tables("positions")[0][1][0]
    assert {key: msgspec.json.decode(after[key]) for key in expected} == expected
    assert View(stream, Trail()).listing("positions", "clip-1").rows == {0: placed + more}
    assert findings(stream, Trail()) == []


def test_events_of_unknown_types_are_part_of_the_trail(server: Server, stream: Stream) -> None:
    """Other views skip them; the audit must not."""
    first = stream.append([observation()])[0].position
    second = foreign_append(server, stream, removed())
    third = stream.append([observation(200, minute=1)])[0].position
    consume(server, stream, Trail(), Clips())

    assert View(stream, Trail()).listing("positions", "clip-1").rows == {0: [first, second, third]}
    assert View(stream, Trail()).state("clip-1") == Subject(
        3, {"clip.views_observed": 2, "stranger.clip_removed": 1}
    )
    skipped = {name.name: View(stream, name).cursors()[0].skipped for name in (Trail(), Clips())}
    assert skipped == {"trail": 0, "clips": 1}
    assert findings(stream, Trail(), Clips()) == []


def test_a_repeated_event_is_in_the_trail_once(server: Server, stream: Stream) -> None:
    """The trail is an index: a position named twice would count an event twice wherever it is used."""
    event = observation()
    position = stream.append([event, event])[0].position
    raw_append(server, stream, event)
    for _ in range(2):
        foreign_append(server, stream, removed())
    consume(server, stream, Trail())

    rows = View(stream, Trail()).listing("positions", "clip-1").rows[0]
    assert (rows[0], len(rows)) == (position, 2)
    assert View(stream, Trail()).cursors()[0].duplicates == 2
    assert findings(stream, Trail()) == []


def test_what_follows_a_repeated_event_is_consumed(server: Server, stream: Stream) -> None:
    """The commit that finds a batch odd has already read the next one: that one must not wait for an entry
    after it.
    """
    event = observation()
    stream.append([event])
    raw_append(server, stream, event)
    stream.append([observation(minute=1), observation(minute=2)])
    consume(server, stream, Trail(), batch_max=2)

    assert View(stream, Trail()).cursors()[0].read == 4


def test_a_subject_without_events_has_no_trail(server: Server, stream: Stream) -> None:
    """Nothing known is an answer, and not an error."""
    stream.append([observation()])
    consume(server, stream, Trail())
    assert View(stream, Trail()).state("nobody") is None
    assert View(stream, Trail()).listing("positions", "nobody").rows == {}


@pytest.mark.parametrize("subject", ["clip-1|0", "", "a b", "{x}", "x" * 129])
def test_an_entry_whose_subject_is_no_identifier_is_set_aside(
    server: Server, stream: Stream, subject: str
) -> None:
    """A raw XADD may name anything. `clip-1|0` is the name of a row of clip-1's trail: folded, it would break
    that list for ever.
    """
    placed = [item.position for item in stream.append([observation(n, minute=n) for n in range(20)])]
    consume(server, stream, Trail(), Clips())
    raw = (
        Codec()
        .encode(observation(event_id="raw"))
        .replace(b'"subject":"clip-1"', b'"subject":' + msgspec.json.encode(subject))
    )
    bad = server.client.xadd(stream.keys[0].log, {"event": raw, "crc32": crc32(raw)}).decode()
    placed += [item.position for item in stream.append([observation(n, minute=n) for n in range(20, 40)])]
    consume(server, stream, Trail(), Clips())

    assert View(stream, Trail()).listing("positions", "clip-1").rows == {0: placed}
    assert [key.decode() for key in server.client.hkeys(stream.keys[0].dead("trail"))] == [bad]
    assert list(View(stream, Clips()).states().rows) == ["clip-1"]
    assert findings(stream, Trail(), Clips()) == []


def test_a_rebuilt_trail_is_the_same_byte_for_byte(server: Server, stream: Stream) -> None:
    """Folded anew, in other batches, from the log alone."""
    stream.append([observation(n, minute=n % 17, clip=f"clip-{n % 3}") for n in range(200)])
    foreign_append(server, stream, removed())
    consume(server, stream, Trail(), batch_max=3)
    tables = {key: value for key, value in dump(server).items() if b":view:trail:" in key}

    view = View(stream, Trail())
    server.client.delete(stream.keys[0].cursor("trail"), view.key(0, "subjects"), view.key(0, "positions"))
    consume(server, stream, Trail(), batch_max=1_000)

    held = {key: server.client.hgetall(key) for key in tables}
    memory = MemoryView(Trail())
    memory.fold(memory.decode(stream.read_raw(0)))
    assert len(tables) == 2
    assert held == {
        view.key(0, name).encode(): {key.encode(): raw for key, raw in memory.tables[name].items()}
        for name in ("subjects", "positions")
    }
    assert findings(stream, Trail()) == []


# Stories.


def test_an_event_without_a_cause_costs_the_stories_nothing(server: Server, stream: Stream) -> None:
    """Most events are observations: no row, no key."""
    stream.append([observation(n, minute=n) for n in range(50)])
    consume(server, stream, Trail())
    assert View(stream, Trail()).tables("stories")[0][1][0] == {}


def test_a_story_lists_its_events_by_correlation_or_else_by_causation(server: Server, stream: Stream) -> None:
    """Whatever their subjects; what the trail has not read yet is for the caller to look at."""
    placed = stream.append(
        [
            observation(1, minute=1, clip="a", correlation_id="root", causation_id="root"),
            observation(2, minute=2, clip="b", correlation_id="root", causation_id="other"),
            observation(3, minute=3, clip="c", causation_id="root"),
            observation(4, minute=4, clip="d", correlation_id="else", causation_id="root"),
        ]
    )
    consume(server, stream, Trail())
    stream.append([observation(5, minute=5, correlation_id="root")])
    positions = [item.position for item in placed]

    assert known_of_stories(stream, ["root"]) == {0: Known(positions[:3], positions[3])}
    assert known_of_stories(stream, ["root", "else", "nothing"]) == {0: Known(positions, positions[3])}
    assert known_of_stories(stream, ["nothing"]) == {0: Known([], positions[3])}
    assert known_of_subject(stream, "b") == Known([positions[1]], positions[3])
    assert findings(stream, Trail()) == []


@pytest.mark.parametrize("count", [1, LISTING_CHUNK, 3 * LISTING_CHUNK + 2])
def test_a_story_of_any_length_is_whole_whatever_it_is_called(
    server: Server, stream: Stream, count: int
) -> None:
    """A correlation_id may read like a row of another list."""
    names = ["long", "long|0", "x" * 900]
    placed = stream.append(
        [
            observation(n, event_id=f"{n}-{number}", correlation_id=name)
            for n in range(count)
            for number, name in enumerate(names)
        ]
    )
    consume(server, stream, Trail(), batch_max=7)
    for number, name in enumerate(names):
        assert known_of_stories(stream, [name])[0].positions == [
            item.position for item in placed[number :: len(names)]
        ]


def test_a_trail_that_was_not_read_or_was_folded_otherwise_knows_nothing(
    server: Server, stream: Stream
) -> None:
    """What relies on the index must read the log on rather than believe an index of another meaning."""
    stream.append([observation(correlation_id="root")])
    assert known_of_subject(stream, "clip-1") == Known([], "")
    consume(server, stream, Trail())
    server.client.hset(stream.keys[0].cursor("trail"), "fingerprint", "another")
    assert known_of_subject(stream, "clip-1") == Known([], "")
    assert known_of_stories(stream, ["root"]) == {0: Known([], "")}


# Imports.


@pytest.fixture
def imports(server: Server) -> Iterator[Stream]:
    stream = open_stream(server, "imports", create=True, settings=Settings(partitions=1))
    yield stream
    stream.close()


def finished(name: str, rows: int, rejected: int, *, content: str = "") -> ImportFinished:
    sha = hashlib.sha256(f"{name} {content}".encode()).hexdigest()
    return ImportFinished(
        event_id=f"{sha[:16]}:end",
        subject=name,
        occurred_at=NOON,
        stream="clips",
        format="csv",
        file_sha256=sha,
        rows=rows,
        valid_rows=rows - rejected,
        rejected_rows=rejected,
    )


def rejected(name: str, row: int, *columns: str) -> ImportRowRejected:
    reason = f"row {row} cannot be used"
    return ImportRowRejected(
        event_id=f"{name}:{row}",
        subject=name,
        occurred_at=NOON,
        stream="clips",
        row=row,
        columns=columns,
        reason=reason,
    )


def test_an_import_says_what_was_read_and_which_rows_were_refused_and_why(
    server: Server, imports: Stream
) -> None:
    """Whoever imported a file mends it by this list."""
    end = finished("a.csv", 100, 2)
    imports.append(
        [
            rejected("a.csv", 7, "video_id"),
            rejected("a.csv", 9, "date", "views"),
            end,
            finished("b.csv", 5, 0),
        ]
    )
    consume(server, imports, Imports())
    view = View(imports, Imports())

    assert view.state("a.csv") == Import("clips", 2, 100, 98, end.file_sha256, "csv", 1)
    assert view.listing("rejects", "a.csv").rows[0] == [
        {"row": 7, "columns": ["video_id"], "reason": "row 7 cannot be used"},
        {"row": 9, "columns": ["date", "views"], "reason": "row 9 cannot be used"},
    ]
    assert view.state("b.csv").rejected == 0
    assert view.listing("rejects", "b.csv").rows == {}
    assert findings(imports, Imports()) == []


def test_a_file_imported_twice_finishes_once_and_a_changed_one_twice(server: Server, imports: Stream) -> None:
    """The events of the same content are the same facts; more than one finish means that the file changed
    under its name.
    """
    for _ in range(2):
        imports.append([rejected("a.csv", 7, "video_id"), finished("a.csv", 100, 1)])
    consume(server, imports, Imports())
    assert (
        View(imports, Imports()).state("a.csv").finishes,
        View(imports, Imports()).state("a.csv").rejected,
    ) == (1, 1)

    imports.append([finished("a.csv", 120, 1, content="grown")])
    consume(server, imports, Imports())

    state = View(imports, Imports()).state("a.csv")
    assert (state.finishes, state.rows, state.valid_rows, state.rejected) == (2, 120, 119, 1)


def test_an_import_that_broke_off_shows_its_refused_rows_and_no_end(server: Server, imports: Stream) -> None:
    """An import that was killed must not look as if it were whole."""
    imports.append([rejected("a.csv", n, "views") for n in range(40)])
    consume(server, imports, Imports(), batch_max=6)

    state = View(imports, Imports()).state("a.csv")
    assert (state.rejected, state.finishes, state.rows, state.file_sha256) == (40, 0, 0, "")
    assert [item["row"] for item in View(imports, Imports()).listing("rejects", "a.csv").rows[0]] == list(
        range(40)
    )


def test_the_imports_view_lives_in_its_own_stream_alone(
    server: Server, stream: Stream, imports: Stream
) -> None:
    """In the stream of the observations it would be empty tables and a group that only lags."""
    stream.append([observation()])
    consume(server, stream, Imports(), Clips())

    assert server.client.exists(stream.keys[0].cursor("imports")) == 0
    assert [group["name"] for group in server.client.xinfo_groups(stream.keys[0].log)] == [b"clips"]
    assert findings(stream, Imports(), Clips()) == []
    assert ClipViewsObserved not in Imports.events
