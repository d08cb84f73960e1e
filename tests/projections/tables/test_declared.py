"""
Everything a person can declare, by random events: whatever the batches, as plain Python says, as a server
holds it, and as it expires in event time.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurastream.projections import MemoryView
from aurastream.projections.built_in.clips import Clips
from aurastream.streams import ClipViewsObserved, Server, Settings, open_stream
from tests.facts import NOON, consume, findings, observation
from tests.projections.engine.folding import (
    Tables,
    assert_batches_do_not_matter,
    cuts_anywhere,
    folded,
    list_of,
    looks,
    many,
    placed,
    scores,
    thorough,
)
from tests.projections.visits import FAME, TTL, Sessions, Visit, Visits
from tests.servers import ServerProcess


def visits_oracle(events: list[ClipViewsObserved], expires: bool) -> dict[str, Any]:
    """The states a key went through, as a list; all tables are sums over those lists."""
    steps: dict[str, list[dict[str, Any]]] = {}
    moves: dict[str, list[int]] = {}
    began: dict[str, list[str]] = {}
    for number, event in enumerate(events, start=1):
        path, at, points = steps.setdefault(event.subject, []), event.occurred_at, event.views - 20
        last = path[-1] if path else None
        if last is None or (expires and last["looks"] != 4 and last["seen"] + TTL <= at):
            looks, start = 1, at
            began.setdefault(event.category, []).append(f"{number}-0")
        elif at <= last["seen"] or points == -20:
            continue
        else:
            looks, start = last["looks"] + 1, last["began"]
        path.append(
            {
                "began": start,
                "seen": at,
                "looks": looks,
                "points": points,
                "part": event.category,
                "hour": at.isoformat()[:13],
            }
        )
        if event.category:
            moves.setdefault(event.category, []).append(points)
    final = {key: path[-1] for key, path in steps.items() if path}
    watermark = max((event.occurred_at for event in events), default=NOON)
    fame = {
        key: state["points"] / 2
        for key, state in final.items()
        if state["points"] != 13 and (state["looks"] == 3 or state["seen"] + FAME > watermark)
    }
    rankings: dict[str, dict[str, float]] = {
        "points": {key: float(state["points"]) for key, state in final.items()},
        "looks": {key: float(state["looks"]) for key, state in final.items()},
        "plain": {key: state["points"] / 2 for key, state in final.items() if state["points"] != 13},
        "fame": fame,
    }
    for key, state in final.items():
        rankings.setdefault(f"points:{state['part']}", {})[key] = state["points"]
        rankings.setdefault(f"looks:{state['looks'] % 2}", {})[key] = state["looks"]
        if key in fame:
            rankings.setdefault(f"fame:{state['part']}", {})[key] = fame[key]
    by_part, by_hour, by_day, total = {}, {}, {}, Counter()
    for path in steps.values():
        if not path:
            continue
        last = path[-1]
        by_part.setdefault(last["part"], Counter()).update(keys=1, points=last["points"], looks=last["looks"])
        total.update(points=last["points"])
        for hour in {state["hour"] for state in path}:
            at_end = [state for state in path if state["hour"] == hour][-1]
            by_hour.setdefault(f"{hour}|{at_end['part']}", Counter()).update(keys=1, points=at_end["points"])
        for day in {state["hour"][:10] for state in path}:
            by_day.setdefault(day, Counter()).update(
                points=[state for state in path if state["hour"][:10] == day][-1]["points"]
            )
    totals = {"by_part": by_part, "by_hour": by_hour, "by_day": by_day, "all": {"": total}}
    return {
        "states": final,
        "rankings": {name: table for name, table in rankings.items() if table},
        "totals": {
            name: {row: dict(sum_) for row, sum_ in rows.items() if any(sum_.values())}
            for name, rows in totals.items()
        },
        "tally": {part: {"moves": len(points), "most": max(points)} for part, points in moves.items()},
        "began": began,
    }


def visits(max_size: int = 40) -> st.SearchStrategy[list[ClipViewsObserved]]:
    look = st.fixed_dictionaries(
        {
            "views": st.sampled_from([0, 1, 19, 20, 21, 33, 40, 100]),
            "minute": st.integers(0, 900),
            "clip": st.sampled_from(["a", "b", "c"]),
            "category": st.sampled_from(["", "x", "y|z"]),
        }
    )
    anyhow = st.lists(look, max_size=max_size)
    return st.one_of(anyhow, anyhow.map(lambda looks: sorted(looks, key=lambda look: look["minute"]))).map(
        many
    )


@pytest.mark.parametrize("projection", [Visits, Sessions])
@thorough
@given(events=visits(), cuts=cuts_anywhere)
@pytest.mark.slow
def test_everything_declared_does_not_depend_on_batches(
    projection: type[Visits], events: list[ClipViewsObserved], cuts: list[int]
) -> None:
    """Split rankings, scores that come and go, expiry of ranks and of states, windows, roll-ups, lists: in
    any batches the same bytes.
    """
    assert_batches_do_not_matter(projection, placed(events), cuts)


@pytest.mark.parametrize("projection", [Visits, Sessions])
@thorough
@given(events=visits())
def test_everything_declared_says_what_plain_python_says(
    projection: type[Visits], events: list[ClipViewsObserved]
) -> None:
    """The kinds of tables keep differences; a recount over the states must give the same."""
    tables = folded(projection(), [placed(events)])
    expected = visits_oracle(events, expires=projection is Sessions)

    states = {
        key: msgspec.structs.asdict(msgspec.json.decode(raw, type=Visit))
        for key, raw in tables.get("states", {}).items()
    }
    assert states == expected["states"]
    ranked = {
        name: scores(tables, name)
        for name in tables
        if name.partition(":")[0] in {"points", "looks", "plain", "fame"}
    }
    assert ranked == {name: table for name, table in expected["rankings"].items() if table}
    for name, rows in expected["totals"].items():
        assert {row: msgspec.json.decode(raw) for row, raw in tables.get(name, {}).items()} == rows
    assert {row: msgspec.json.decode(raw) for row, raw in tables.get("tally", {}).items()} == expected[
        "tally"
    ]
    for key in ("", "x", "y|z"):
        assert list_of(tables.get("began", {}), key) == expected["began"].get(key, [])


# What a real server holds.


def held(server: Server, prefix: str) -> Tables:
    """The tables under a prefix, in MemoryView's form."""
    tables: Tables = {}
    client = server.client
    for raw in client.keys("*"):
        key = raw.decode()
        if key.startswith(prefix):
            is_hash = client.type(key) == b"hash"
            tables[key.removeprefix(prefix)] = (
                {name.decode(): value for name, value in client.hgetall(key).items()}
                if is_hash
                else {name.decode(): score for name, score in client.zrange(key, 0, -1, withscores=True)}
            )
    return tables


@settings(max_examples=15, deadline=None, derandomize=True, database=None)
@given(events=st.one_of(looks(25), visits(25)), batch_max=st.integers(1, 9))
def test_a_server_holds_what_the_view_in_memory_holds(
    one_server: ServerProcess, events: list[ClipViewsObserved], batch_max: int
) -> None:
    """The view in memory is what `check` compares with: it must be the same thing, key by key and byte by
    byte.
    """
    server = Server(one_server.url)
    server.client.flushall()
    stream = open_stream(server, "clips", create=True, settings=Settings(partitions=1))
    stream.append(events)
    consume(server, stream, Clips(), Visits(), Sessions(), batch_max=batch_max)

    for projection in (Clips(), Visits(), Sessions()):
        memory = MemoryView(projection)
        if raw := stream.read_raw(0):
            memory.fold(memory.decode(raw))
        expected = {}
        for name, table in memory.tables.items():
            key, colon, part = name.partition(":")
            full = stream.keys[0].view(projection.name, 1, key, part if colon else None)
            if table:
                is_scored = any(not isinstance(value, bytes) for value in table.values())
                expected[full] = {key: float(value) for key, value in table.items()} if is_scored else table
        prefix = stream.keys[0].view(projection.name, 1, "")
        assert held(server, prefix) == {key.removeprefix(prefix): table for key, table in expected.items()}
    assert findings(stream, Clips(), Visits()) == []
    stream.close()
    server.close()


# Expiry in event time, by example.


def points(view: MemoryView) -> dict[str, tuple[int, int]]:
    states = {key: msgspec.json.decode(raw, type=Visit) for key, raw in view.tables["states"].items()}
    return {key: (state.looks, state.points) for key, state in states.items()}


def test_a_state_older_than_its_time_to_live_is_absent_to_the_fold() -> None:
    """In event time: at 90 minutes it begins anew, a microsecond earlier it goes on; no clock is read."""
    in_time, too_late = MemoryView(Sessions()), MemoryView(Sessions())
    in_time.take([observation(21), observation(22, minute=90 - 1e-6 / 60)])
    too_late.take([observation(21), observation(22, minute=90)])

    assert points(in_time) == {"clip-1": (2, 2)}
    assert points(too_late) == {"clip-1": (1, 2)}


def test_another_keys_event_expires_no_state_but_expires_ranks() -> None:
    """A state's time is compared with its own next event; a ranking's with the partition's latest."""
    view = MemoryView(Sessions())
    view.take([observation(21, clip="a"), observation(22, clip="b", minute=200)])

    assert set(view.tables["states"]) == {"a", "b"}
    assert set(view.tables["fame"]) == {"b"}


def test_an_expired_rank_comes_back_with_its_next_event_and_a_late_event_expires_nothing() -> None:
    """Event time only grows: a late event must neither take away nor bring back."""
    view = MemoryView(Visits())
    view.take([observation(21, clip="a"), observation(22, clip="b", minute=200)])
    view.take([observation(23, clip="a", minute=250)])
    assert set(view.tables["fame"]) == {"a", "b"}

    view.take([observation(24, clip="c", minute=3)])

    assert set(view.tables["fame"]) == {"a", "b"}  # c's own end, minute 203, has passed
    assert view.tables["fame:"].keys() == {"a", "b"}


def test_a_window_keeps_what_a_state_added_before_it_expired() -> None:
    """A key's contribution to an earlier window stays, also when the state has expired since, within a batch
    or between two.
    """
    events = placed([observation(21), observation(22, minute=150)])
    whole, singles = folded(Sessions(), [events]), folded(Sessions(), [[event] for event in events])

    assert list(singles["by_hour"]) == ["2026-04-15T12|", "2026-04-15T14|"]
    assert whole == singles


def test_a_key_counts_once_in_a_window_in_which_its_state_began_anew() -> None:
    """The window is a day: three sessions of one key are one contribution, the last."""
    tables = folded(Sessions(), [placed([observation(21 + n, minute=100 * n) for n in range(3)])])
    assert tables["by_day"] == {"2026-04-15": b'{"points":3}'}
