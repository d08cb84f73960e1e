"""Sliding windows: what a key gained in the last minutes of event time, whatever the batches, and as one
table among others.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurastream.projections import MemoryView, Projection, ProjectionError, Sliding, View
from aurastream.projections.past import AsOf, Inquiry, PastView, why
from aurastream.projections.rebuild import Decision, rebuild_subject
from aurastream.streams import ClipViewsObserved, History, Server, Settings, Stream, open_stream
from tests.facts import NOON, consume, findings, observation

HOUR, FIVE = timedelta(hours=1), timedelta(minutes=5)


class Watched(msgspec.Struct, frozen=True):
    views: int
    category: str


class Recent(Projection[Watched]):
    """Observations as they come: an older one counts as well."""

    name = "recent"
    events = (ClipViewsObserved,)
    state = Watched
    tables = (
        Sliding("last_hour", of={"views": "views", "looks": 1}, span=HOUR, grain=FIVE),
        Sliding("by_category", of={"views": "views"}, span=HOUR, grain=FIVE, by="category"),
    )

    def apply(self, state: Watched | None, event: ClipViewsObserved) -> Watched:
        return Watched((0 if state is None else state.views) + event.views, event.category)


def recent(*events: ClipViewsObserved, batch: int = 1) -> MemoryView:
    view = MemoryView(Recent())
    for first in range(0, len(events), batch):
        view.take(list(events[first : first + batch]), first=first + 1)
    return view


def last_hour(view: MemoryView, row: str = "clip-1", table: str = "last_hour") -> dict[str, Any]:
    spec = next(table_ for table_ in Recent.tables if table_.name == table)
    return spec.value(view.tables[table][row])


def test_the_value_is_what_the_last_hour_of_event_time_added() -> None:
    """The promise: buckets of the span that ends with the row's latest event, and nothing before them."""
    view = recent(
        observation(1), observation(2, minute=3), observation(4, minute=30), observation(8, minute=62)
    )

    assert last_hour(view) == {"views": 12, "looks": 2, "at": NOON + timedelta(minutes=62), "late": 0}


def test_a_bucket_leaves_with_the_event_that_moves_the_span_past_it() -> None:
    """At 12:59 the bucket of noon is the twelfth of an hour and counts; at 13:00 it is the thirteenth."""
    assert last_hour(recent(observation(1), observation(2, minute=59.99)))["views"] == 3
    assert last_hour(recent(observation(1), observation(2, minute=60)))["views"] == 2


def test_a_late_event_adds_to_its_own_bucket_while_that_is_in_the_span_and_is_counted_after() -> None:
    """Order of arrival must not decide what happened when; what is too old is said, not lost in silence."""
    view = recent(
        observation(1, minute=60),
        observation(2, minute=10),
        observation(4, minute=2),
        observation(8, minute=71),
    )

    assert last_hour(view) == {"views": 9, "looks": 2, "at": NOON + timedelta(minutes=71), "late": 1}


def test_a_row_that_nothing_happens_to_stays_as_it_is() -> None:
    """The watermark is the row's own: another key's events move no window but theirs, and no clock moves
    any.
    """
    alone = recent(observation(1))
    beside = recent(observation(1), observation(1, minute=500, clip="other"))

    assert beside.tables["last_hour"]["clip-1"] == alone.tables["last_hour"]["clip-1"]


def test_a_row_never_has_more_buckets_than_the_span_has_grains() -> None:
    """Rows are read and written whole: a window that only grew would stop the view one day."""
    view = recent(*[observation(1, minute=minute) for minute in range(0, 3_000, 4)], batch=100)

    assert len(msgspec.json.decode(view.tables["last_hour"]["clip-1"])["buckets"]) == 12


def test_parts_add_up_over_their_keys() -> None:
    """With by the row is the part: a category's last hour, whoever was in it."""
    view = recent(
        observation(1, category="irl"),
        observation(2, clip="b", category="irl"),
        observation(4, clip="c", category="x"),
    )

    assert last_hour(view, "irl", "by_category")["views"] == 3


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 2), st.integers(0, 9)), max_size=40),
    st.integers(1, 40),
)
def test_batches_do_not_matter(drawn: list[tuple[int, int, int]], batch: int) -> None:
    """The invariant of every table: the same bytes whatever the batches, or a rebuild would differ from the
    live view.
    """
    events = [
        observation(views, minute=minute, clip=f"clip-{clip}", category=f"c{clip % 2}", event_id=f"e{n}")
        for n, (minute, clip, views) in enumerate(drawn)
    ]

    assert recent(*events, batch=batch).tables == recent(*events).tables


def crowd(count: int = 300) -> list[ClipViewsObserved]:
    return [
        observation(n % 7, minute=n * 37 % 211, clip=f"clip-{n % 9}", category=f"c{n % 2}", event_id=f"e{n}")
        for n in range(count)
    ]


def test_a_server_holds_it_and_every_way_to_look_at_a_view_knows_it(server: Server) -> None:
    """One file and a name in ``tables``: the fold, check, reads, the past, why and repairs ask the kind
    itself.
    """
    stream = open_stream(server, "clips-two", create=True, settings=Settings(partitions=2))
    events = crowd()
    stream.append(events)
    consume(server, stream, Recent(), batch_max=17)

    view, history = View(stream, Recent()), History(stream)
    rows = view.read("last_hour").rows
    whole = recent(*events)

    assert findings(stream, Recent()) == []
    assert rows == {f"clip-{n}": last_hour(whole, f"clip-{n}") for n in range(9)}
    assert view.listed("last_hour").rows == rows
    assert view.read("last_hour", row="clip-3").rows == {"clip-3": rows["clip-3"]}
    assert PastView(history, Recent(), AsOf(NOON + timedelta(days=1))).read("last_hour").rows == rows
    told = why(Inquiry(history, Recent(), "clip-3", "last_hour"))
    assert told.agrees
    assert [step.type for step in told.steps] == ["clip.views_observed"] * len(told.steps) != []
    stream.close()


def test_a_part_of_several_partitions_slides_with_the_latest_of_them(server: Server) -> None:
    """Partitions know nothing of each other; only who reads all of them can say what the last hour is."""
    stream = open_stream(server, "clips-two", create=True, settings=Settings(partitions=2))
    here, there = (
        next(f"c{n}" for n in range(99) if stream.partition_of(f"c{n}") == place) for place in range(2)
    )
    stream.append(
        [
            observation(1, clip=here),
            observation(2, clip=here, minute=50),
            observation(4, clip=there, minute=70),
        ]
    )
    consume(server, stream, Recent())

    assert View(stream, Recent()).read("by_category").rows[""]["views"] == 6
    stream.close()


def test_a_row_that_was_changed_by_hand_is_found_and_put_right(server: Server, stream: Stream) -> None:
    """A key's own rows are repaired from its own events; a part's are shared and left to the rebuild."""
    stream.append(crowd(40))
    consume(server, stream, Recent())
    view = View(stream, Recent())
    server.client.hset(view.key(0, "last_hour"), "clip-3", b'{"latest":1,"late":0,"buckets":[]}')

    mended = rebuild_subject(History(stream), Recent(), "clip-3", Decision("ada@host", ""), accept=True)

    assert (mended.is_written, mended.shared) == (True, ["by_category"])
    assert findings(stream, Recent()) == []


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"span": timedelta(minutes=7)}, "must be a multiple of the grain"),
        ({"span": timedelta(0)}, "must be a multiple of the grain"),
        ({"grain": timedelta(seconds=1)}, "3600 buckets a row"),
        ({"of": {"views": "veiws"}}, "Did you mean 'views'?"),
        ({"at": "occured_at"}, "Did you mean 'occurred_at'?"),
        ({"by": "kategory"}, "Did you mean 'category'?"),
    ],
)
def test_a_definition_that_cannot_work_is_refused_when_it_is_loaded(
    options: dict[str, Any], sentence: str
) -> None:
    """Not at the first event of a night: a typing error is named with what was meant."""
    given_ = {"of": {"views": "views"}, "span": HOUR, "grain": FIVE} | options
    projection = Recent()
    projection.tables = (Sliding("broken", **given_),)

    with pytest.raises(ProjectionError, match=sentence.replace("?", r"\?")):
        projection.check()
