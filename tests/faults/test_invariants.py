"""The checker can fail: each gate removed turns it red, and with all gates it is green."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aurastream.projections import View
from aurastream.projections.engine import commit
from aurastream.streams import Script, Server, Stream
from aurastream.streams import appending as log
from tests.facts import consume, observation, raw_append
from tests.faults.disk import last_commit
from tests.invariants import (
    Ack,
    Held,
    check,
    check_acks,
    check_log,
    check_prefix,
    check_rebuilt,
    check_view,
    held_by,
    read_acks,
)
from tests.projections.counting import Counting
from tests.projections.engine.test_exactly_once import commit_of, send

GROUP = "counting"


def held(server: Server, stream: Stream) -> Held:
    return held_by(server.client, stream.name, 0)


def fill(stream: Stream, first: int = 0, count: int = 12) -> None:
    stream.append(
        [
            observation(views=n, minute=n, clip=f"clip-{n % 3}", category=f"c{n % 2}")
            for n in range(first, first + count)
        ]
    )


def test_the_checker_shares_no_code_with_the_projections() -> None:
    """A fault in shared code would be invisible to both."""
    text = (Path(__file__).parent.parent / "invariants.py").read_text()
    assert "aurastream" not in text


# Each scenario ends quiescent; with all gates the checker says nothing.


def a_late_commit(server: Server, stream: Stream) -> None:
    """It is delivered again after the next one: the cursor compare refuses it."""
    fill(stream)
    late = commit_of(server, stream)
    send(stream, late)
    fill(stream, 12)
    consume(server, stream, Counting())
    send(stream, late)


def a_mirrored_log(server: Server, stream: Stream) -> None:
    """Events that are there are appended again by plain XADD: the ids check finds them odd."""
    fill(stream)
    for entry in stream.read(0)[3:6]:
        raw_append(server, stream, entry.event)
    consume(server, stream, Counting())


def a_ranking_of_another_type(server: Server, stream: Stream) -> None:
    """Half a commit would be written before the type is found wrong; then somebody mends the key."""
    fill(stream)
    key = View(stream, Counting()).key(0, "most", "c0")
    server.client.set(key, "mine")
    with pytest.raises(Exception, match=r"is a string|WRONGTYPE"):
        consume(server, stream, Counting(), attempts_max=1)
    server.client.delete(key)
    consume(server, stream, Counting())


def an_event_appended_twice(server: Server, stream: Stream) -> None:
    """As after a lost answer."""
    for _ in range(2):
        fill(stream)
    consume(server, stream, Counting())


SCENARIOS: dict[str, tuple[Callable[[Server, Stream], None], Any, str, str, str]] = {
    "cursor compare": (a_late_commit, commit, "_COMMIT", "position ~= head.after or ", ""),
    "ids check in commit": (
        a_mirrored_log,
        commit,
        "_COMMIT",
        "if #places > 0 then return {ANSWER.ODD, places} end",
        "",
    ),
    "plan before commit": (
        a_ranking_of_another_type,
        commit,
        "_COMMIT",
        "local refusal = broken()",
        "local refusal",
    ),
    "ids check in append": (
        an_event_appended_twice,
        log,
        "APPEND",
        "local known = held[i] and unpacked(held[i])",
        "local known = nil",
    ),
}


def judged(server: Server, stream: Stream, scenario: Callable[[Server, Stream], None]) -> list[str]:
    scenario(server, stream)
    acks = [Ack(f"clip-{n % 3}:{n}:{n}", "memory", "acked") for n in range(12)]
    now = held(server, stream)
    return check(now) + check_acks([now], acks, strangers=scenario is not an_event_appended_twice)


@pytest.mark.parametrize("gate", SCENARIOS)
def test_with_all_gates_the_checker_is_green(server: Server, stream: Stream, gate: str) -> None:
    """The other half of the next test: the scenario alone is no fault."""
    assert judged(server, stream, SCENARIOS[gate][0]) == []


@pytest.mark.parametrize("gate", SCENARIOS)
def test_without_a_gate_the_checker_is_red(
    server: Server, stream: Stream, monkeypatch: pytest.MonkeyPatch, gate: str
) -> None:
    """A checker that cannot fail proves nothing, and a gate nobody misses is dead code."""
    scenario, module, name, guard, without = SCENARIOS[gate]
    whole = getattr(module, name)
    assert whole.text.count(guard) == 1
    mutant = object.__new__(Script)
    mutant.name, mutant.text = "mutant", whole.text.replace(guard, without)
    mutant.sha = hashlib.sha1(mutant.text.encode()).hexdigest()
    monkeypatch.setitem(Script.every, mutant.sha, mutant)
    monkeypatch.setattr(module, name, mutant)

    assert judged(server, stream, scenario) != []


# Consumers with another gate: the table of RELIABILITY.md 3.1.


class Naive:
    """Counts what its gate lets through, and keeps no cursor. gate: xack (XACK returned 1) or ledger (the
    event ID is new).
    """

    def __init__(self, server: Server, stream: Stream, gate: str) -> None:
        self.client, self.gate, self.log = server.client, gate, stream.keys[0].log
        self.view = View(stream, Counting())
        self.ledger: set[str] = set()
        self.client.xgroup_create(self.log, GROUP, "0", mkstream=True)

    def read(self, count: int = 100) -> list[Any]:
        answer = self.client.xreadgroup(GROUP, "owner", {self.log: ">"}, count=count)
        return answer[0][1] if answer else []

    def apply(self, entries: list[Any]) -> None:
        for position, fields in entries:
            event = json.loads(fields[b"event"])
            is_acked = self.client.xack(self.log, GROUP, position) == 1
            if is_acked if self.gate == "xack" else event["event_id"] not in self.ledger:
                self.ledger.add(event["event_id"])
                self._count(event)

    def _count(self, event: dict[str, Any]) -> None:
        clip, category = event["subject"], event.get("category", "")
        states, sums = self.view.key(0, "states"), self.view.key(0, "all")
        raw = self.client.hget(states, clip)
        state = json.loads(raw) if raw else {"applied": 0, "views": 0, "category": category}
        is_new = raw is None
        state = {
            "applied": state["applied"] + 1,
            "views": state["views"] + event["views"],
            "category": category,
        }
        self.client.hset(states, clip, json.dumps(state))
        for key in (self.view.key(0, "most"), self.view.key(0, "most", category)):
            self.client.zadd(key, {clip: -state["applied"]})
        row = json.loads(self.client.hget(sums, category) or b'{"clips":0,"applied":0,"views":0}')
        row = {
            "clips": row["clips"] + is_new,
            "applied": row["applied"] + 1,
            "views": row["views"] + event["views"],
        }
        self.client.hset(sums, category, json.dumps(row))


def no_hazard(naive: Naive) -> None:
    naive.apply(naive.read())


def the_group_set_back(naive: Naive) -> None:
    naive.apply(naive.read())
    naive.client.xgroup_setid(naive.log, GROUP, "0")
    naive.apply(naive.read())


def the_group_set_ahead(naive: Naive) -> None:
    naive.client.xgroup_setid(naive.log, GROUP, "$")
    naive.apply(naive.read())


def the_consumer_deleted(naive: Naive) -> None:
    naive.read(5)  # delivered, and its answer lost
    naive.client.xgroup_delconsumer(naive.log, GROUP, "owner")
    naive.apply(naive.read())


def the_consumer_deleted_with_a_batch_in_its_hands(naive: Naive) -> None:
    entries = naive.read()
    naive.client.xgroup_delconsumer(naive.log, GROUP, "owner")
    naive.apply(entries)


def a_ghost(naive: Naive) -> None:
    """Read from the old primary; the new one has never had the last entries."""
    entries = naive.read()
    naive.client.xdel(naive.log, *[position for position, _ in entries[-2:]])
    naive.apply(entries)


@pytest.mark.parametrize(
    ("gate", "hazard", "is_sound"),
    [
        ("xack", no_hazard, True),
        ("ledger", no_hazard, True),
        ("xack", the_group_set_back, False),
        ("ledger", the_group_set_back, True),
        ("xack", the_group_set_ahead, False),
        ("ledger", the_group_set_ahead, False),
        ("xack", the_consumer_deleted, False),
        ("ledger", the_consumer_deleted, False),
        ("xack", the_consumer_deleted_with_a_batch_in_its_hands, False),
        ("ledger", the_consumer_deleted_with_a_batch_in_its_hands, True),
        ("ledger", a_ghost, False),
    ],
    ids=lambda value: value.__name__ if callable(value) else str(value),
)
def test_consumers_with_another_gate_turn_the_checker_red(
    server: Server, stream: Stream, gate: str, hazard: Callable[[Naive], None], is_sound: bool
) -> None:
    """The common ways to be exactly once, each with the hazard it does not survive."""
    stream.append(
        [observation(views=n, minute=n, clip=f"clip-{n % 4}", category=f"c{n % 2}") for n in range(12)]
    )
    hazard(Naive(server, stream, gate))
    assert (check_view(held(server, stream)) == []) is is_sound


# Each invariant by itself.


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (
            lambda client, keys, view: client.hset(
                view.key(0, "states"), "clip-1", '{"applied":4,"views":26.0,"category":"c0"}'
            ),
            "clip-1",
        ),
        (lambda client, keys, view: client.zadd(view.key(0, "most", "c9"), {"x": 1}), "most:c9"),
        (lambda client, keys, view: client.hset(keys.cursor(GROUP), "checksum", 7), "checksum 7"),
        (lambda client, keys, view: client.hset(keys.cursor(GROUP), "position", "5-5"), "does not hold"),
        (lambda client, keys, view: client.hset(keys.dead(GROUP), "5-5", "why"), "dead 5-5"),
        (
            lambda client, keys, view: client.xdel(keys.log, client.xrange(keys.log)[3][0]),
            "1 entries are gone",
        ),
        (
            lambda client, keys, view: client.hset(keys.ids, b"12345678", b"1234567890"),
            "no event of the log explains",
        ),
        (lambda client, keys, view: client.hdel(keys.ids, client.hkeys(keys.ids)[0]), "ids has no row"),
        (lambda client, keys, view: client.expire(keys.meta, 900), "time to live"),
        (lambda client, keys, view: client.set(keys.log + ":mine", 1), "nobody knows the key"),
        (lambda client, keys, view: client.xadd(keys.log, {"a": "b"}), "the log ends at"),
        (lambda client, keys, view: client.xreadgroup(GROUP, "owner", {keys.log: ">"}), "pending"),
    ],
)
def test_the_checker_names_what_was_tampered_with(
    server: Server, stream: Stream, tamper: Callable[..., Any], said: str
) -> None:
    """Whoever reads a red run has to know where to look."""
    fill(stream)
    consume(server, stream, Counting())
    assert check(held(server, stream)) == []
    if said == "pending":
        server.client.xgroup_setid(stream.keys[0].log, GROUP, "0")

    tamper(server.client, stream.keys[0], View(stream, Counting()))

    findings = check(held(server, stream))
    assert any(said in sentence for sentence in findings), findings


def test_a_state_in_between_is_judged_by_its_prefix(server: Server, stream: Stream) -> None:
    """Chaos runs look in the middle of the work, where the log is ahead of the view."""
    fill(stream)
    consume(server, stream, Counting())
    fill(stream, 12)
    between = held(server, stream)

    assert check_prefix(between) == []
    assert any("the log ends at" in sentence for sentence in check(between))


def test_acknowledged_events_are_there_once_and_nothing_else_is(
    server: Server, stream: Stream, tmp_path: Path
) -> None:
    """A producer's promise is checked by what it wrote down, not by what the log says of itself."""
    fill(stream, count=2)
    server.client.copy(stream.keys[0].log, "other")
    names = ["clip-0:0:0", "clip-1:1:1"]
    file = tmp_path / "acks"
    lines = [{"event_id": name, "level": "memory", "outcome": "acked"} for name in names]
    lines += [
        {"event_id": "lost", "level": "disk", "outcome": "acked"},
        {"event_id": "who knows", "level": "disk", "outcome": "unknown"},
    ]
    file.write_text("\n".join(map(json.dumps, lines)) + '\n{"event_id": "half')
    acks, now = read_acks(file), [held(server, stream)]

    assert len(acks) == 4
    assert check_acks(now, acks) == ["event 'lost' was acknowledged at level disk and is not in the log"]
    assert check_acks(now, acks, may_lose=["disk"]) == []
    assert check_acks(now, acks[1:], may_lose=["disk"]) == [
        "event 'clip-0:0:0' is in the log and nobody sent it"
    ]
    raw_append(server, stream, stream.read(0)[0].event)
    assert any("2 times" in sentence for sentence in check_acks([held(server, stream)], acks))


def test_a_rebuilt_view_has_the_same_bytes(server: Server, stream: Stream) -> None:
    """Equal by value is not enough: a spelling that changes is a fold that changed."""
    fill(stream)
    last_commit(stream)
    before = held(server, stream)
    server.client.hset(View(stream, Counting()).key(0, "all"), "c0", '{ "applied":6,"views":30,"clips":2}')
    after = held(server, stream)

    assert check_rebuilt(before, before) == []
    assert any("all was rebuilt" in sentence for sentence in check_rebuilt(before, after))
    assert check_log(before) == []
