"""Views that the first rules of intake folded: what became of them when readers learnt to pass over fields.

The build of before is played by those rules (first_rules.py), its verdicts are written down here by hand;
tests/processors/host/test_before.py runs the real one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from zlib import crc32

import pytest
from msgspec.structs import replace

from aurastream.projections import ProjectionRedefined, View
from aurastream.projections.engine import Batch, apply
from aurastream.projections.engine.definition import is_same_definition, may_go_on, start_of
from aurastream.projections.engine.first_rules import read_by_first_rules
from aurastream.projections.rebuild import Decision, rebuild_subject
from aurastream.streams import ClipViewsObserved, Codec, Cursor, Event, Server, ShortText, Stream
from aurastream.streams.history import History
from tests.facts import consume, findings, observation
from tests.projections.counting import Counting
from tests.projections.rebuild.test_rebuild import rebuilt


class Spoken(ClipViewsObserved, frozen=True, kw_only=True, tag="clip.views_observed"):
    """The newer type."""

    language: ShortText = ""


class CountingSpoken(Counting):
    """The same fold by it: the definition is the same."""

    events = (Spoken,)


Before = Callable[[], AbstractContextManager[None]]


@pytest.fixture
def before(monkeypatch: pytest.MonkeyPatch) -> Before:
    """Within it, this is the build that knew the first rules alone."""

    def start(held: Cursor, own: str, *, differs: bool = False) -> Cursor | None:
        return replace(held, fingerprint=own) if held.fingerprint in ("", own) else None

    def by_first_rules(batch: Any, position: bytes, raw: bytes, where: str) -> Event | None:
        return read_by_first_rules(batch._codec, raw, where)

    @contextmanager
    def build() -> Iterator[None]:
        with monkeypatch.context() as patched:
            patched.setattr(apply, "start_of", start)
            patched.setattr(Batch, "_decoded", by_first_rules)
            patched.setattr(Batch, "_opened", lambda batch, jsons, events: events)
            yield

    return build


def newer(stream: Stream, event_id: str, **fields: object) -> None:
    """What a newer producer writes: a look at a clip with fields of its own."""
    content = {**json.loads(Codec().encode(observation(event_id=event_id))), **fields}
    raw = json.dumps(content).encode()
    stream.server.client.xadd(stream.keys[0].log, {"event": raw, "crc32": crc32(raw)})


def cursor(stream: Stream) -> Cursor:
    return View(stream, Counting()).cursors()[0]


def applied(stream: Stream) -> int:
    state = View(stream, Counting()).state("clip-1")
    return 0 if state is None else state.applied


def test_a_new_field_is_no_damage(server: Server, stream: Stream) -> None:
    """A producer that is upgraded first must not empty the views of hosts that are not. In small batches: the
    first is looked at closely, the others are read the quick way.
    """
    stream.append([observation(event_id="e1")])
    for number in range(2, 20):
        newer(stream, f"e{number}", language="de")
    newer(stream, "e5", language="fr")
    newer(stream, "damaged", views="many", language="de")

    consume(server, stream, Counting(), batch_max=4)

    assert (applied(stream), cursor(stream).dead, cursor(stream).duplicates) == (19, 1, 1)
    assert findings(stream, Counting()) == []


def test_a_view_goes_over_with_the_first_event_that_the_rules_differ_on(
    server: Server, stream: Stream, before: Before
) -> None:
    """Until then both builds may fold it, one after the other or side by side; no upgrade needs a rebuild."""
    stream.append([observation(event_id="e1")])
    with before():
        consume(server, stream, Counting())
    stream.append([observation(event_id="e2")])
    consume(server, stream, Counting())
    stream.append([observation(event_id="e3")])
    with before():
        consume(server, stream, Counting())
    assert (cursor(stream).fingerprint, applied(stream)) == (Counting().fingerprint, 3)
    assert findings(stream, Counting()) == []

    newer(stream, "e4", language="de")
    consume(server, stream, Counting())

    assert cursor(stream).fingerprint == f"{Counting().fingerprint}.2"
    assert (applied(stream), findings(stream, Counting())) == (4, [])


def test_what_the_first_rules_set_aside_stays_listed_and_what_follows_is_read(
    server: Server, stream: Stream, before: Before
) -> None:
    """The view goes on without a rebuild, `check` takes each entry for what it was, a rebuild reads all."""
    newer(stream, "e0", views="many")
    with before():
        stream.append([observation(event_id="e1")])
        newer(stream, "e2", language="de")
        consume(server, stream, Counting())
    set_aside = stream.server.client.hgetall(stream.keys[0].dead("counting"))
    assert [set_aside[place].decode() for place in sorted(set_aside)] == [
        "it is no valid clip.views_observed (Expected `int`, got `str` - at `$.views`)",
        "it is no valid clip.views_observed (Object contains unknown field `language`)",
    ]
    assert findings(stream, Counting()) == [], "also before a host ran"

    newer(stream, "e3", language="de")
    consume(server, stream, Counting())

    assert (cursor(stream).fingerprint, cursor(stream).dead) == (f"{Counting().fingerprint}.2", 2)
    assert (applied(stream), findings(stream, Counting())) == (2, [])
    assert stream.server.client.hgetall(stream.keys[0].dead("counting")) == set_aside

    newer(stream, "e4", language="de")
    consume(server, stream, Counting(), batch_max=1)
    assert (applied(stream), findings(stream, Counting())) == (3, [])
    one = rebuild_subject(History(stream), Counting(), "clip-1", Decision("ada@host"), accept=False)
    assert one.differences == [], "a repair of one key obeys them too"

    assert sum(part.differing for part in rebuilt(stream, Counting(), accept=True)) > 0
    assert cursor(stream).fingerprint == f"{Counting().fingerprint}.2"
    assert (applied(stream), cursor(stream).dead, findings(stream, Counting())) == (4, 1, [])


def test_a_field_that_another_build_of_the_plug_in_knows_is_no_difference(
    server: Server, stream: Stream, before: Before
) -> None:
    """Who checks may have the older type, and who folded the newer one, or the other way round."""
    stream.server.client.xadd(stream.keys[0].log, {"hand": "made"})
    with before():
        newer(stream, "e1", language="de")
        consume(server, stream, Counting())
    newer(stream, "e2", language="de")
    consume(server, stream, CountingSpoken())

    assert (applied(stream), cursor(stream).dead) == (1, 2)
    assert findings(stream, Counting()) == []
    assert any(complaint.endswith("folds them too") for complaint in findings(stream, CountingSpoken()))


def test_a_build_of_before_refuses_a_view_that_went_over(
    server: Server, stream: Stream, before: Before
) -> None:
    """By its rules it would set aside what the view's own read."""
    newer(stream, "e1", language="de")
    consume(server, stream, Counting())
    stream.append([observation(views=2)])

    with before(), pytest.raises(ProjectionRedefined):
        consume(server, stream, Counting())

    assert (applied(stream), findings(stream, Counting())) == (1, [])


@pytest.mark.parametrize("stored", ["ffffffffffffffff", "ffffffffffffffff.2", "0000000000000000.3"])
def test_another_definition_or_newer_rules_are_refused(stored: str) -> None:
    """What is not known cannot be obeyed."""
    assert start_of(Cursor(fingerprint=stored), "0000000000000000") is None


def test_generations_of_either_rules_are_kept_up() -> None:
    """A kept generation of before the upgrade must be there to roll back to."""
    assert is_same_definition("0000000000000000", "0000000000000000")
    assert is_same_definition("0000000000000000.2", "0000000000000000")
    assert not is_same_definition("ffffffffffffffff", "0000000000000000")
    runnable = ["0000000000000000", "0000000000000000.2"]
    assert [stored for stored in runnable if may_go_on(stored, "0000000000000000")] == runnable
    for stored in ("", "ffffffffffffffff.2", "0000000000000000.3"):
        assert not may_go_on(stored, "0000000000000000"), stored
