"""Between events and bytes: what goes in comes out equal, and damage is found."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from zlib import crc32

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurastream.streams import (
    BUILT_IN,
    ClipViewsObserved,
    Codec,
    CreatorErased,
    DamagedEntry,
    EffectDiscarded,
    EffectParked,
    EffectRetried,
    Event,
    GenerationRetired,
    GroupForgotten,
    ImportFinished,
    ImportRowRejected,
    InvalidEvent,
    LogArchived,
    LogReplayed,
    LogTrimmed,
    ProcessorAccepted,
    RebuildCompared,
    RebuildStarted,
    SegmentSetAside,
    StreamError,
    SubjectRebuilt,
    UnknownEventVersion,
    ViewRolledBack,
    ViewSwapped,
    derived_id,
    from_cloudevent,
    observed_id,
    to_cloudevent,
)
from aurastream.streams.entries import EVENT_BYTES_MAX, entry_json
from aurastream.streams.events import COUNT_MAX
from aurastream.streams.index import pack_position, pack_positions, unpack_position
from aurastream.streams.keys import Keys, partition_of
from aurastream.streams.sealing import KEY_BYTES, Cipher

GOLDEN = Path(__file__).parent / "golden"
NOON = datetime(2026, 4, 15, 12, tzinfo=UTC)
SEALED = Cipher("5f2b1c0d9e8a7f6b", bytes(range(KEY_BYTES)))  # deterministic: its tokens are golden too
SAMPLES: dict[str, Event] = {
    "clip.views_observed.v1": ClipViewsObserved(
        event_id="twitch:clip-1:20260415T120000.000000Z",
        subject="clip-1",
        occurred_at=NOON,
        source="clip-radar-1",
        correlation_id="poll-7",
        causation_id="tick-7",
        traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        views=1200,
        category="Just Chatting",
        title="Überraschung 생일",
        channel="somebody",
        created_at=datetime(2026, 4, 15, 11, tzinfo=UTC),
    ),
    "clip.views_observed.v1.sealed": ClipViewsObserved(
        event_id="twitch:clip-1:20260415T120000.000000Z",
        subject="clip-1",
        occurred_at=NOON,
        source="clip-radar-1",
        views=1200,
        category="Just Chatting",
        title=SEALED.seal("Überraschung 생일"),
        channel=SEALED.seal("somebody"),
        creator="5f2b1c0d9e8a7f6b",
    ),
    "import.row_rejected.v1": ImportRowRejected(
        event_id="views.csv:7",
        subject="views.csv",
        occurred_at=NOON,
        source="import",
        stream="chzzk",
        row=7,
        columns=("date",),
        reason="no day",
    ),
    "import.finished.v1": ImportFinished(
        event_id="views.csv:finished:00",
        subject="views.csv",
        occurred_at=NOON,
        stream="chzzk",
        format="chzzk",
        file_sha256="0" * 64,
        rows=3,
        valid_rows=2,
        rejected_rows=1,
    ),
    "effect.parked.v1": EffectParked(
        event_id="notify:clips.0:1764000000000-3:parked:0",
        subject="clip-1",
        occurred_at=NOON,
        source="host-7-0a1b2c3d",
        correlation_id="poll-7",
        causation_id="e7",
        processor="notify",
        place="clips/0/1764000000000-3",
        attempts=5,
        reason="TimeoutError",
    ),
    "effect.retried.v1": EffectRetried(
        event_id="notify:clips.0:1764000000000-3:retried:1",
        subject="clip-1",
        occurred_at=NOON,
        source="ada@host",
        causation_id="e7",
        processor="notify",
        place="clips/0/1764000000000-3",
        why="the webhook answers again",
    ),
    "effect.discarded.v1": EffectDiscarded(
        event_id="notify:clips.0:1764000000000-3:discarded",
        subject="clip-1",
        occurred_at=NOON,
        source="ada@host",
        causation_id="e7",
        processor="notify",
        place="clips/0/1764000000000-3",
        why="sent by hand",
        reason="TimeoutError",
    ),
    "group.forgotten.v1": GroupForgotten(
        event_id="clips:notify:forgotten:20260415T120000.000000Z",
        subject="notify",
        occurred_at=NOON,
        source="ada@host",
        producers_of="clips",
        behind_events=1_000_000,
        why="replaced by mail",
    ),
    "processor.accepted.v1": ProcessorAccepted(
        event_id="clips:notify:accepted:2",
        subject="notify",
        occurred_at=NOON,
        source="ada@host",
        stream="clips",
        record=2,
        gained="clip.title_changed",
        since="skipped",
        why="titles are mailed too",
    ),
    "rebuild.started.v1": RebuildStarted(
        event_id="rebuild:clips:clips:2:started",
        subject="clips",
        occurred_at=NOON,
        source="ada@host",
        stream="clips",
        generation=2,
        why="a new rule",
    ),
    "rebuild.compared.v1": RebuildCompared(
        event_id="rebuild:clips:clips:2:compared",
        subject="clips",
        occurred_at=NOON,
        source="ada@host",
        stream="clips",
        generation=2,
        events=549_296,
        differing=3,
    ),
    "view.swapped.v1": ViewSwapped(
        event_id="rebuild:clips:clips:2:swapped",
        subject="clips",
        occurred_at=NOON,
        source="ada@host",
        stream="clips",
        generation=2,
        previous=1,
        differing=3,
        why="the new rule is right",
    ),
    "view.rolled_back.v1": ViewRolledBack(
        event_id="rebuild:clips:clips:1:rolled_back",
        subject="clips",
        occurred_at=NOON,
        source="ada@host",
        stream="clips",
        generation=1,
        previous=2,
        why="it is not",
    ),
    "generation.retired.v1": GenerationRetired(
        event_id="rebuild:clips:clips:1:retired",
        subject="clips",
        occurred_at=NOON,
        source="ada@host",
        stream="clips",
        generation=1,
        why="kept 24 h",
    ),
    "subject.rebuilt.v1": SubjectRebuilt(
        event_id="rebuild:clips:clips:clip-1",
        subject="clip-1",
        occurred_at=NOON,
        source="ada@host",
        stream="clips",
        projection="clips",
        differing=1,
        why="a wrong HSET",
    ),
    "log.archived.v1": LogArchived(
        event_id="archive:clips:0:1",
        subject="clips",
        occurred_at=NOON,
        source="ada@host",
        partition=0,
        number=1,
        first="1764000000000-0",
        last="1764000000000-3",
        entries=4,
        head="0" * 64,
    ),
    "segment.set_aside.v1": SegmentSetAside(
        event_id="clips:0:set_aside:2:0000000000000000",
        subject="clips",
        occurred_at=NOON,
        source="ada@host",
        partition=0,
        number=2,
        first="1764000000000-4",
        last="1764000000000-9",
        entries=6,
        events=5,
        head="0" * 64,
        why="the replica lagged",
    ),
    "log.trimmed.v1": LogTrimmed(
        event_id="trim:clips:0:1764000000000-3",
        subject="clips",
        occurred_at=NOON,
        source="ada@host",
        partition=0,
        until="1764000000000-3",
        entries=4,
        why="older than a week",
    ),
    "log.replayed.v1": LogReplayed(
        event_id="replay:clips:1",
        subject="clips",
        occurred_at=NOON,
        source="ada@host",
        into="stream sandbox",
        events=4,
        selection="--type clip.x",
    ),
    "creator.erased.v1": CreatorErased(
        event_id="erase:5f2b1c0d9e8a7f6b",
        subject="5f2b1c0d9e8a7f6b",
        occurred_at=NOON,
        source="ada@host",
        why="asked on 12 April",
    ),
}

instants = st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
counts = st.integers(0, COUNT_MAX)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
events = st.builds(
    ClipViewsObserved,
    event_id=st.just("e"),
    subject=st.just("s"),
    occurred_at=instants,
    source=texts,
    views=counts,
    category=texts,
    title=texts,
    channel=texts,
    correlation_id=texts,
    created_at=st.none() | instants,
)


@given(events)
def test_an_event_comes_back_equal(event: Event) -> None:
    """What is read is what was written, whatever the texts and numbers."""
    codec = Codec()
    raw = codec.encode(event)

    assert codec.decode(raw) == event
    assert raw.startswith(b'{"type":"clip.views_observed","event_id":"e"'), (
        "append.lua reads the ID by its place"
    )


@given(events)
def test_an_event_comes_back_equal_through_a_cloudevent(event: Event) -> None:
    """Others send and take our events in that form; nothing may be lost on the way."""
    made = msgspec.json.decode(msgspec.json.encode(to_cloudevent(event)))
    restored = from_cloudevent(made, Codec())
    assert restored == event or event.source == "aurastream"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"specversion": "0.3"}, "1.0"),
        ({"id": None}, "event_id|str"),
        ({"type": "no.such"}, "not installed"),
        ({"data_base64": "AA=="}, "data_base64"),
        ({"tenant": "x"}, "tenant"),
        ({"data": [1]}, "no JSON object"),
        ({"data": {"views": -1}}, "views"),
        ({"datacontenttype": "text/plain"}, "application/json"),
        ({"time": "yesterday"}, "occurred_at"),
    ],
)
def test_a_bad_cloudevent_says_what_is_wrong(change: dict[str, Any], said: str) -> None:
    """An attribute without a place in our envelope is refused, for it would be lost silently."""
    content = to_cloudevent(SAMPLES["clip.views_observed.v1"]) | change
    with pytest.raises(InvalidEvent, match=said):
        from_cloudevent(content, Codec())


@pytest.mark.parametrize("kind", BUILT_IN)
def test_every_released_version_has_a_golden_entry_that_still_decodes(kind: type[Event]) -> None:
    """Old entries decode for ever; the files were written once and are not written again."""
    for version in range(1, kind.schema_version + 1):
        name = f"{kind.__struct_config__.tag}.v{version}"
        assert Codec().decode((GOLDEN / f"{name}.json").read_bytes()) == SAMPLES[name]


def test_a_sealed_event_decodes_and_its_tokens_never_change() -> None:
    """A token that another build made must open, and be made alike, or a repeat of a poll would change the
    view.
    """
    raw = (GOLDEN / "clip.views_observed.v1.sealed.json").read_bytes()
    assert Codec().decode(raw) == SAMPLES["clip.views_observed.v1.sealed"]
    assert Codec().encode(SAMPLES["clip.views_observed.v1.sealed"]) == raw


class Third(Event, frozen=True, kw_only=True, tag="test.renamed"):
    schema_version = 3
    score: Annotated[int, msgspec.Meta(ge=0)]
    unit: str


UPCASTERS = {
    ("test.renamed", 1): lambda old: {
        **{k: v for k, v in old.items() if k != "points"},
        "score": old["points"],
    },
    ("test.renamed", 2): lambda old: {**old, "unit": "views"},
}


def test_older_versions_are_upcast_step_by_step() -> None:
    """Entries of every release decode for ever, through each version between."""
    codec = Codec((Third,), UPCASTERS)
    first = b'{"type":"test.renamed","event_id":"e","subject":"s",'
    first += b'"occurred_at":"2026-04-15T12:00:00Z","points":5}'

    made = codec.decode(first)
    again = codec.decode(codec.encode(made))

    assert (made.score, made.unit, made.version) == (5, "views", 3)
    assert again == made


def test_a_type_whose_history_has_a_hole_is_refused_at_start() -> None:
    """Better than at the first old entry, in the middle of a night."""
    with pytest.raises(StreamError, match="upcaster"):
        Codec((Third,), {("test.renamed", 1): dict})


def test_a_newer_version_stops_rather_than_being_misread() -> None:
    """An old build that guesses would count wrong, and for good."""
    newer = b'{"type":"clip.views_observed","event_id":"e","subject":"s",'
    newer += b'"occurred_at":"2026-04-15T12:00:00Z","views":1,"version":2,"x":1}'
    with pytest.raises(UnknownEventVersion, match="Deploy"):
        Codec().decode(newer)


START = b'{"type":"clip.views_observed","event_id":"e","subject":"s","occurred_at":"2026-04-15T12:00:00Z",'


@pytest.mark.parametrize(
    "tail",
    [
        b'"views":-1}',
        b'"views":1.5}',
        b'"views":"5"}',
        b'"views":9007199254740992}',
        b'"views":18446744073709551616}',
        b'"views":NaN}',
        b'"views":1e400}',
        b'"views":1,"version":-1}',
        b'"views":1,"title":"\xff"}',
        b'"views":1,"title":"\\ud800"}',
        b'"views":',
        b"}",
        b'"views":1,"title":' + b"[" * 100_000,
        b'"views":' + b"9" * 100_000 + b"}",
    ],
)
def test_content_that_does_not_fit_its_type_is_damage(tail: bytes) -> None:
    """A raw XADD may hold anything; it must be named, and decode to nothing."""
    with pytest.raises(DamagedEntry):
        Codec().decode(START + tail)


def test_an_oversized_event_is_refused_before_it_is_sent() -> None:
    """Old servers answer an oversized value by closing the connection, which looks like a passing fault."""

    class Large(Event, frozen=True, kw_only=True, tag="test.large"):
        text: str

    with pytest.raises(InvalidEvent, match="limit"):
        Codec((Large,)).encode(Large(event_id="e", subject="s", occurred_at=NOON, text="x" * EVENT_BYTES_MAX))


def test_every_flipped_bit_of_an_entry_is_found() -> None:
    """The AOF has no checksum of its own."""
    raw = Codec().encode(SAMPLES["clip.views_observed.v1"])
    stated = b"%d" % crc32(raw)
    for place in range(len(raw) * 8):
        flipped = bytearray(raw)
        flipped[place // 8] ^= 1 << place % 8
        with pytest.raises(DamagedEntry, match="checksum"):
            entry_json("x", [b"event", bytes(flipped), b"crc32", stated])


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_positions_survive_packing(milliseconds: int, sequence: int) -> None:
    """The index holds 10 bytes for a position: another one would be another event."""
    position = b"%d-%d" % (milliseconds, sequence)
    assert unpack_position(pack_position(position)) == position
    assert pack_positions([position, b"5-4095", position]) == [
        pack_position(position),
        pack_position(b"5-4095"),
        pack_position(position),
    ]


def test_partitions_and_derived_ids_never_change() -> None:
    """Both are written into logs: another hash would split a subject's order or double its facts."""
    assert [partition_of(subject, 4) for subject in ("clip-1", "clip-2", "5gH8iXNW8wE", "12766257")] == [
        2,
        0,
        3,
        0,
    ]
    assert observed_id("twitch", "clip-1", NOON) == "twitch:clip-1:20260415T120000.000000Z"
    assert (
        derived_id("x" * 128, "recap", 3)
        == derived_id("x" * 128, "recap", 3)
        != derived_id("x" * 128, "recap", 4)
    )
    with pytest.raises(StreamError, match="offset"):
        observed_id("twitch", "clip-1", NOON.replace(tzinfo=None))


@given(st.text(min_size=1, max_size=40))
def test_no_category_escapes_its_partitions_hash_tag(part: str) -> None:
    """Braces in a key's name would move it to another slot, where no script can reach it."""
    key = Keys("clips", 3).view("clips", 1, "viral", part)
    assert key.startswith("aura:{clips.3}:view:clips:1:viral:")
    assert not set("{}*? \n") & set(key.partition("viral:")[2])
