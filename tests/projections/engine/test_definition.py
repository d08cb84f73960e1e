"""Views that the first rules of intake folded: what became of them when readers learnt to pass over fields.

The build of before is played by those rules (first_rules.py), its verdicts are written down here by hand;
tests/docs/test_roll_out.py runs the real one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from zlib import crc32

import pytest

from aurastream.projections import Projection, ProjectionError, ProjectionRedefined, View
from aurastream.projections.built_in.trail import Trail
from aurastream.projections.engine import Batch, projection
from aurastream.projections.engine.definition import adopted, fingerprint_of, is_same_definition, may_go_on
from aurastream.projections.rebuild import Decision, rebuild_subject
from aurastream.streams import Codec, Cursor, Server, Stream
from aurastream.streams.history import History
from tests.facts import consume, findings, observation
from tests.projections.counting import Counting
from tests.projections.rebuild.test_rebuild import rebuilt

Before = Callable[[], AbstractContextManager[None]]


@pytest.fixture
def before(monkeypatch: pytest.MonkeyPatch) -> Before:
    """Within it, this is the build that knew the first rules alone."""

    def without_rules(definition: str) -> str:
        return fingerprint_of(definition).partition(".")[0]

    @contextmanager
    def build() -> Iterator[None]:
        with monkeypatch.context() as patched:
            patched.setattr(projection, "fingerprint_of", without_rules)
            patched.setattr(Batch, "_is_closed", lambda batch, position: True)
            yield

    return build


def newer(stream: Stream, event_id: str, **fields: object) -> None:
    """What a newer producer writes: a look at a clip with fields of its own."""
    content = {**json.loads(Codec().encode(observation(event_id=event_id))), **fields}
    raw = json.dumps(content).encode()
    stream.server.client.xadd(stream.keys[0].log, {"event": raw, "crc32": crc32(raw)})


def cursor(stream: Stream, kind: type[Projection[object]] = Counting) -> Cursor:
    return View(stream, kind()).cursors()[0]


def applied(stream: Stream) -> int:
    state = View(stream, Counting()).state("clip-1")
    return 0 if state is None else state.applied


def test_a_new_field_is_no_damage(server: Server, stream: Stream) -> None:
    """A producer that is upgraded first must not empty the views of hosts that are not."""
    stream.append([observation(event_id="e1")])
    newer(stream, "e2", language="de")

    consume(server, stream, Counting())

    assert (applied(stream), cursor(stream).dead, findings(stream, Counting())) == (2, 0, [])


def test_a_view_of_which_nothing_was_set_aside_goes_over_at_once(
    server: Server, stream: Stream, before: Before
) -> None:
    """Both rules say the same of all it has read, so an upgrade needs no rebuild."""
    stream.append([observation(event_id=f"e{n}") for n in range(5)])
    with before():
        consume(server, stream, Counting())
    assert len(cursor(stream).fingerprint) == 16
    assert findings(stream, Counting()) == [], "also before a host ran"

    newer(stream, "e5", language="de")
    consume(server, stream, Counting())

    assert (cursor(stream).fingerprint, cursor(stream).closed_to) == (Counting().fingerprint, "")
    assert (applied(stream), findings(stream, Counting())) == (6, [])


def test_what_the_first_rules_set_aside_stays_listed_and_what_follows_is_read(
    server: Server, stream: Stream, before: Before
) -> None:
    """The view goes on without a rebuild, `check` folds each part by its own rules, a rebuild reads all."""
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

    place = cursor(stream).position
    newer(stream, "e3", language="de")
    consume(server, stream, Counting())

    assert (cursor(stream).closed_to, cursor(stream).dead) == (place, 2)
    assert cursor(stream).fingerprint == Counting().fingerprint.replace(".2", ".1-2")
    assert (applied(stream), findings(stream, Counting())) == (2, [])
    assert stream.server.client.hgetall(stream.keys[0].dead("counting")) == set_aside

    newer(stream, "e4", language="de")
    consume(server, stream, Counting(), batch_max=1)
    assert (cursor(stream).closed_to, applied(stream), findings(stream, Counting())) == (place, 3, [])
    with pytest.raises(ProjectionError, match="aurastream rebuild counting"):
        rebuild_subject(History(stream), Counting(), "clip-1", Decision("ada@host"), accept=False)

    assert sum(part.differing for part in rebuilt(stream, Counting(), accept=True)) > 0
    assert (cursor(stream).fingerprint, cursor(stream).closed_to) == (Counting().fingerprint, "")
    assert (applied(stream), cursor(stream).dead, findings(stream, Counting())) == (4, 1, [])


def test_a_view_of_envelopes_goes_over_whatever_was_set_aside(
    server: Server, stream: Stream, before: Before
) -> None:
    """No field of a type is looked at, so no rule changed."""
    stream.server.client.xadd(stream.keys[0].log, {"hand": "made"})
    with before():
        consume(server, stream, Trail())
    stream.append([observation()])

    consume(server, stream, Trail())

    assert (cursor(stream, Trail).fingerprint, cursor(stream, Trail).dead) == (Trail().fingerprint, 1)
    assert findings(stream, Trail()) == []


def test_a_build_of_before_refuses_a_view_that_went_over(
    server: Server, stream: Stream, before: Before
) -> None:
    """By its rules it would set aside what the view's own read."""
    stream.append([observation()])
    consume(server, stream, Counting())
    stream.append([observation(views=2)])

    with before(), pytest.raises(ProjectionRedefined):
        consume(server, stream, Counting())

    assert (applied(stream), findings(stream, Counting())) == (1, [])


@pytest.mark.parametrize("stored", ["ffffffffffffffff", "ffffffffffffffff.2", "0000000000000000.3"])
def test_another_definition_or_newer_rules_are_refused(stored: str) -> None:
    """What is not known cannot be obeyed."""
    assert adopted(Cursor(fingerprint=stored), "0000000000000000.2") is None


def test_generations_of_either_rules_are_kept_up() -> None:
    """A kept generation of before the upgrade must be there to roll back to."""
    assert is_same_definition("0000000000000000", "0000000000000000.2")
    assert is_same_definition("0000000000000000.1-2", "0000000000000000.2")
    assert not is_same_definition("ffffffffffffffff", "0000000000000000.2")
    runnable = ["0000000000000000", "0000000000000000.1-2", "0000000000000000.2"]
    assert [stored for stored in runnable if may_go_on(stored, "0000000000000000.2")] == runnable
    for stored in ("", "ffffffffffffffff.2", "0000000000000000.3", "0000000000000000.2-3"):
        assert not may_go_on(stored, "0000000000000000.2"), stored
