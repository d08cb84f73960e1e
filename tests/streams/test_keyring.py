"""Personal fields: sealed where they are kept, opened where they are shown, gone with their key."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from aurastream.streams import (
    OPERATIONS,
    Ack,
    ClipViewsObserved,
    Codec,
    Event,
    InvalidEvent,
    NotReplicated,
    Server,
    Settings,
    Stream,
    StreamError,
    open_stream,
)
from aurastream.streams.creators import KEPT_MAX
from aurastream.streams.errors import KeysLocked
from aurastream.streams.events import SEALED_MAX, TEXT_MAX, PersonalText, ShortText
from aurastream.streams.keyring import KEY_AGE_S, REASON_BYTES_MAX
from aurastream.streams.keys import CREATOR_KEYS, CREATORS
from aurastream.streams.personal.erasure import erase
from aurastream.streams.sealing import KEY_BYTES, TOKEN, Cipher, is_reserved
from tests.cluster import Cluster
from tests.commands import ROOT
from tests.facts import NOON, observation, raw_append
from tests.servers import EVERY_SERVER, ServerProcess, binaries, until

P = "0123456789abcdef"
CIPHER = Cipher(P, bytes(range(KEY_BYTES)))
SETTINGS = Settings(partitions=1)
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=TEXT_MAX)


def opened(server: Server, name: str = "clips-test", **settings: Any) -> Stream:
    """Another stream object, as another process has one: with a cache of its own."""
    return open_stream(server, name, settings=SETTINGS.model_copy(update=settings), create=True)


def stored(stream: Stream) -> list[Any]:
    return [entry.event for entry in stream.read(0)]


def last_part(token: str) -> bytes:
    match = TOKEN.fullmatch(token.encode())
    assert match is not None
    return match[2]


def erased(server: Server, creator: str = "ada") -> str:
    return erase(opened(server, OPERATIONS), creator, why="asked", who="tests")[0].subject


# The sealed form.


@given(texts)
def test_a_text_comes_back_from_its_token_and_always_has_the_same_one(text: str) -> None:
    """Repeats of a poll must encode alike, and a rebuild must fold the same bytes."""
    token = CIPHER.seal(text)

    assert (CIPHER.open(last_part(token)) if text else token) == text
    assert Cipher(P, bytes(range(KEY_BYTES))).seal(text) == token
    assert not text or is_reserved(token)


def test_the_longest_text_fits_the_sealed_bound() -> None:
    """A title that may be appended must be sealable, in any script."""
    assert len(CIPHER.seal("\U0010ffff" * TEXT_MAX)) <= SEALED_MAX
    assert len(f"{'x' * 100}{CIPHER.seal('x' * REASON_BYTES_MAX)}") <= TEXT_MAX


@given(texts.filter(bool), st.data())
def test_a_token_that_was_changed_anywhere_opens_to_nothing(text: str, data: st.DataObject) -> None:
    """Every byte is authenticated: nobody can swap texts between creators."""
    part = bytearray(base64.urlsafe_b64decode(last_part(CIPHER.seal(text)) + b"=="))
    part[data.draw(st.integers(0, len(part) - 1))] ^= 1 << data.draw(st.integers(0, 7))

    assert CIPHER.open(base64.urlsafe_b64encode(part).rstrip(b"=")) is None


@pytest.mark.parametrize("part", [b"", b"A", b"A" * 23, b"A" * 25, b"!" * 23, b"\xff" * 30, b"A" * 100_000])
def test_what_is_no_token_opens_to_nothing(part: bytes) -> None:
    """What shows a view opens whatever is in it."""
    assert CIPHER.open(part) is None


def test_a_token_opens_under_no_other_pseudonym_even_with_its_key() -> None:
    """Else a forger could move a text from one creator to another."""
    assert Cipher(P[::-1], CIPHER.key).open(last_part(CIPHER.seal("secret"))) is None


# Into the log, and out of it.


def test_an_append_stores_tokens_and_a_pseudonym(server: Server, stream: Stream) -> None:
    """Neither text nor name may be in the log, or an erasure could not reach them."""
    seen = observation(creator="ada-7", title='Über "uns"\n생일', channel="Ada Official", category="irl")

    stream.append([seen])

    (_, fields), (event,) = stream.read_raw(0)[0], stored(stream)
    assert not any(word in fields[1] for word in (b"ada-7", "Über".encode(), b"Ada Official"))
    assert b'"category":"irl"' in fields[1], "what is not personal stays legible"
    assert server.client.hget(CREATORS, "ada-7").decode() == event.creator
    assert msgspec.structs.replace(stream.keyring.open_event(event), creator="ada-7") == seen
    assert Codec().decode(stream.keyring.open_json(fields[1])) == msgspec.structs.replace(
        seen, creator=event.creator
    )
    assert stream.keyring.open_text(f"ValueError: {event.title}") == f"ValueError: {seen.title}"


def test_without_a_creator_nothing_is_sealed(server: Server, stream: Stream) -> None:
    """There would be no key to drop."""
    seen = observation(title="a title", channel="a channel")

    stream.append([seen])

    assert stream.read_raw(0)[0][1][1] == Codec().encode(seen)
    assert server.client.keys("aura:{creators}*") == []


def test_repeats_and_other_processes_seal_alike(server: Server, stream: Stream) -> None:
    """A repeated poll must encode alike, or it would be another fact."""
    other = opened(server)
    polls = [observation(views=n, minute=n, creator="ada", title="the same") for n in range(4)]

    stream.append(polls[:2])
    other.append(polls[2:])
    again = other.append(polls)

    assert len({(event.creator, event.title) for event in stored(stream)}) == 1
    assert {item.outcome.name for item in again} == {"DUPLICATE"}


def test_processes_that_meet_a_new_creator_at_once_agree_on_its_key(server: Server, stream: Stream) -> None:
    """Of two keys one would be lost, and with it every text it sealed."""
    start = threading.Barrier(8)

    def produce(number: int) -> None:
        mine = opened(Server(server.url))
        start.wait()
        for creator in range(20):
            mine.append(
                [
                    observation(
                        minute=number,
                        clip=f"clip-{creator}",
                        creator=f"creator {creator}",
                        title=f"by {creator}",
                    )
                ]
            )
        mine.close()

    producers = [threading.Thread(target=produce, args=(number,)) for number in range(8)]
    for producer in producers:
        producer.start()
    for producer in producers:
        producer.join()

    found = stored(stream)
    assert len(found) == 160
    assert len({event.creator for event in found}) == len({event.title for event in found}) == 20
    assert server.client.hlen(CREATORS) == server.client.hlen(CREATOR_KEYS) == 20
    assert {stream.keyring.open_event(event).title for event in found} == {f"by {n}" for n in range(20)}


@pytest.mark.slow
def test_more_creators_and_texts_than_a_process_remembers(stream: Stream) -> None:
    """What it forgets it asks for again; a batch larger than the cache is sealed whole."""
    count = KEPT_MAX + 500
    batch = [observation(clip=f"clip-{n}", creator=f"creator-{n}", title=f"title {n}") for n in range(count)]

    stream.append(batch)
    raws, after = [], "0-0"
    while found := stream.read_raw(0, after):
        raws += [fields[1] for _, fields in found]
        after = found[-1][0].decode()

    assert [json.loads(raw)["title"] for raw in stream.keyring.open_each(raws)] == [
        f"title {n}" for n in range(count)
    ]


def test_an_append_that_others_drive_asks_through_them(stream: Stream) -> None:
    """Processors and the host have connections of their own, and must not block their loop on ours."""
    steps, answers, keys = stream.appending([observation(creator="ada", title="driven")]), None, []
    while True:
        try:
            routed = steps.send(answers)
        except StopIteration:
            break
        keys += [key for key, _ in routed]
        answers = stream.wire(0).ask(*[command for _, command in routed])

    assert keys == [CREATORS, stream.keys[0].log]
    assert stream.keyring.open_event(stored(stream)[0]).title == "driven"


# What is refused.


@pytest.mark.parametrize("creator", ["", "ada"])
def test_a_personal_text_has_the_bound_it_always_had(stream: Stream, creator: str) -> None:
    """The stored form is longer; what is given is not allowed to be."""
    stream.append([observation(creator=creator, title="\U0001f600" * TEXT_MAX)])
    for batch in (
        [observation(minute=1), observation(minute=2, creator=creator, title="x" * (TEXT_MAX + 1))],
    ):
        with pytest.raises(InvalidEvent, match=r"number 2 .* length <= 1000 - at `\$.title`"):
            stream.append(batch)
    assert len(stored(stream)) == 1


def test_a_title_that_only_begins_like_a_token_is_a_title(stream: Stream) -> None:
    """People write what they like."""
    seen = [
        observation(minute=n, creator=creator, title="sealed: my box")
        for n, creator in enumerate(("", "ada"))
    ]
    stream.append(seen)
    assert [stream.keyring.open_event(event).title for event in stored(stream)] == ["sealed: my box"] * 2


def test_what_looks_sealed_is_refused_unless_it_was_sealed_here_for_its_creator(
    server: Server, stream: Stream
) -> None:
    """Else anyone could give a creator words, or make a text unreadable that no erasure ever named."""
    stream.append(
        [observation(creator="ada", title="hers"), observation(minute=1, creator="bob", title="his")]
    )
    hers, his = stored(stream)
    flipped = hers.title[:-2] + ("AA" if hers.title[-2:] != "AA" else "BB")
    rows = server.client.hgetall(CREATORS)

    for creator, title in [
        ("", hers.title),
        ("ada", hers.title),
        (his.creator, hers.title),
        (hers.creator, flipped),
        (hers.creator, hers.title + "x y"),
        (P, CIPHER.seal("from elsewhere")),
        ("carol", hers.title),
        ("", "sealed:2:later"),
        (hers.creator, "sealed:1:"),
    ]:
        with pytest.raises(InvalidEvent, match=r"number 2 .* begins as a sealed text does"):
            stream.append([observation(minute=2), observation(minute=3, creator=creator, title=title)])

    assert len(stored(stream)) == 2
    assert server.client.hgetall(CREATORS) == rows, "a refused event makes no creator"
    stream.append([observation(minute=4, creator="carol", title="own words")])
    assert stream.keyring.open_event(stored(stream)[2]).title == "own words"


def test_fields_that_are_no_texts_are_refused_as_ever(stream: Stream) -> None:
    """Sealing comes before the checks and must not hide what they say."""
    odd = [5, ["x"], "\ud800"]
    for change in [{field: value} for field in ("title", "creator") for value in odd] + [
        {"creator": "x" * (TEXT_MAX + 1)}
    ]:
        with pytest.raises(InvalidEvent):
            stream.append(
                [
                    observation(**{"creator": "ada", **change}),
                    observation(minute=1, creator=["bob"], title="sealed:1:"),
                ]
            )
    assert stored(stream) == []
    assert stream.server.client.hkeys(CREATORS) in ([], [b"ada"])


class Lacking(Event, frozen=True, kw_only=True, tag="test.lacking"):
    personal = ("name",)
    name: PersonalText


class Counted(Event, frozen=True, kw_only=True, tag="test.counted"):
    personal = ("name",)
    name: int
    creator: ShortText = ""


class Short(Event, frozen=True, kw_only=True, tag="test.short"):
    personal = ("name",)
    name: ShortText
    creator: ShortText = ""


class Enveloped(Event, frozen=True, kw_only=True, tag="test.enveloped"):
    personal = ("source",)
    creator: ShortText = ""


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Lacking, "'creator'"),
        (Counted, "'name'"),
        (Short, "does not fit the bounds of Short.name"),
        (Enveloped, "'source'"),
    ],
)
def test_a_class_that_cannot_be_sealed_is_refused_at_start(kind: type[Event], said: str) -> None:
    """Not at its first event."""
    with pytest.raises(StreamError, match=said):
        Codec((kind,))


class GuestInvited(Event, frozen=True, kw_only=True, tag="test.guest_invited"):
    """A stranger's event type."""

    personal = ("guest",)
    guest: PersonalText
    room: ShortText = ""
    creator: ShortText = ""


def test_a_stranger_s_personal_fields_are_sealed_by_declaring_them(server: Server) -> None:
    """A package of one's own gets erasure without code."""
    stream = open_stream(
        server, "rooms", codec=Codec((GuestInvited, ClipViewsObserved)), settings=SETTINGS, create=True
    )
    invited = GuestInvited(
        event_id="g", subject="room-1", occurred_at=NOON, guest="Grace", room="blue", creator="ada"
    )

    stream.append([invited, observation(creator="ada", title="Grace")])

    guest, clip = stored(stream)
    assert (guest.creator, guest.guest, guest.room) == (clip.creator, clip.title, "blue"), (
        "one creator, one key, in every type"
    )
    assert stream.keyring.open_event(guest).guest == "Grace"


# Moved, and derived.


def test_a_stored_event_is_moved_as_it_is_before_and_after_the_erasure(
    server: Server, stream: Stream
) -> None:
    """A replay into a stream must neither open it nor seal it twice."""
    stream.append([observation(creator="ada", title="t", channel="")])
    (event,) = stored(stream)
    raw = stream.read_raw(0)[0][1]

    first = opened(server, "sandbox")
    first.append([event])
    erased(server)
    second = opened(server, "sandbox-2")
    second.append([event])

    assert first.read_raw(0)[0][1] == second.read_raw(0)[0][1] == raw
    assert server.client.hlen(CREATOR_KEYS) == 1
    assert [second.keyring.open_event(item).title for item in stored(second)] == [""]


def test_what_is_derived_under_a_pseudonym_is_sealed_with_its_key_and_refused_once_that_is_erased(
    server: Server, stream: Stream
) -> None:
    """A handler sees texts and a pseudonym; what it returns must fall under the same erasure."""
    stream.append([observation(creator="ada", title="t")])
    (event,) = stored(stream)

    opened(server, "derived").append([observation(minute=1, creator=event.creator, title="t", channel="new")])
    (derived,) = stored(opened(server, "derived"))
    assert (derived.creator, derived.title) == (event.creator, event.title)

    erased(server)
    late = opened(server, "derived")
    with pytest.raises(InvalidEvent, match="erased meanwhile"):
        late.append([observation(minute=2, creator=event.creator, title="t")])
    late.append([observation(minute=2, creator=event.creator)])
    assert [late.keyring.open_event(item).channel for item in stored(late)] == ["", ""]


# Erased.


def test_an_erasure_takes_one_creator_s_texts_and_no_other_s(server: Server, stream: Stream) -> None:
    """Too little breaks a law, too much breaks the log."""
    stream.append(
        [observation(creator="ada", title="hers"), observation(minute=1, creator="bob", title="his")]
    )
    before = stream.read_raw(0)

    pseudonym = erased(server)

    fresh = opened(server)
    assert [fresh.keyring.open_event(event).title for event in stored(fresh)] == ["", "his"]
    assert fresh.read_raw(0) == before
    assert server.client.hgetall(CREATORS).keys() == {b"bob"}
    assert server.client.hget(CREATOR_KEYS, pseudonym) == b""
    fresh.append([observation(minute=2, creator="ada", title="again")])
    assert stored(fresh)[2].creator not in {"ada", pseudonym}


_WATCH = """
import sys, time
from aurastream.streams import Server, open_stream
stream = open_stream(Server(sys.argv[1]), "clips-test")
token = stream.read(0)[0].event.title
told = None
while told != "":
    if (text := stream.keyring.open_text(token)) != told:
        told = text
        print(repr(told), time.time(), flush=True)
"""


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.any_server
def test_other_processes_forget_an_erased_key_within_its_age(server: Server, stream: Stream) -> None:
    """It is the promise of `aurastream erase`."""
    stream.append([observation(creator="ada", title="hers")])
    command = [sys.executable, "-c", _WATCH, server.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as watcher:
        assert watcher.stdout is not None
        assert watcher.stdout.readline().startswith("'hers' ")

        erased(server)
        at = time.time()
        told, when = watcher.stdout.readline().split()

    assert (told, watcher.wait()) == ("''", 0)
    assert float(when) - at <= KEY_AGE_S + 1, "and one for a busy machine"


@pytest.mark.slow
@pytest.mark.any_server
def test_a_producer_that_has_not_noticed_seals_with_the_erased_key(server: Server, stream: Stream) -> None:
    """So what it appends is erased too; after the key's age it gets another one."""
    stream.append([observation(creator="ada", title="one")])
    pseudonym = erased(server)
    stream.append([observation(minute=1, creator="ada", title="two")])

    def has_another_key() -> bool:
        stream.append(
            [observation(minute=2, creator="ada", title="three", event_id=str(time.monotonic_ns()))]
        )
        return bool(stored(stream)[-1].creator != pseudonym)

    assert stored(stream)[1].creator == pseudonym
    until(has_another_key, "the producer to notice", KEY_AGE_S + 5)
    fresh = opened(server)
    shown = [fresh.keyring.open_event(event).title for event in stored(fresh)]
    assert set(shown[:-1]) == {""}
    assert shown[-1] == "three"


# Shown.


FORGED = (f"sealed:1:{P}:{'A' * 40}", CIPHER.seal("of another server"))


@given(st.dictionaries(texts, st.one_of(texts, st.sampled_from(FORGED), st.just("sealed:1:"))))
def test_opening_never_fails_and_json_stays_json(known_server: Server, content: dict[str, str]) -> None:
    """A token that no key here opens is shown as nothing; all else as it is."""
    shown = json.loads(opened(known_server).keyring.open_json(msgspec.json.encode(content)))
    assert shown == {name: "" if text in FORGED else text for name, text in content.items()}


@given(st.binary(max_size=200))
def test_opening_garbage_gives_garbage(known_server: Server, garbage: bytes) -> None:
    """Readers open whatever they show, damage too."""
    keyring = opened(known_server).keyring
    raw = b"sealed:1:" + garbage
    assert keyring.open_json(raw) == raw or TOKEN.search(raw)
    assert keyring.open_text(f"sealed:1:{garbage.decode('utf-8', 'surrogateescape')}").startswith(
        "sealed:1:"
    ) or TOKEN.search(raw)


@pytest.fixture(scope="module")
def known_server(one_server: ServerProcess) -> Iterator[Server]:
    """For the random search, which cannot empty a server for each example."""
    server = Server(one_server.url)
    yield server
    server.close()


def test_text_that_json_must_escape_is_escaped(stream: Stream) -> None:
    """Opened texts are put into stored JSON: a quote in a title must not end it."""
    title = '"},{"views":1 \\ \n \x00 \u2028 생일 \U0001f600'
    stream.append([observation(creator="ada", title=title)])
    raw = stream.read_raw(0)[0][1][1]
    assert json.loads(stream.keyring.open_json(raw))["title"] == title


def test_a_raw_xadd_of_plain_text_is_shown_as_it_is(server: Server, stream: Stream) -> None:
    """Who writes past append seals nothing; reading must not break on it."""
    raw_append(server, stream, observation(creator="ada", title="plain"))
    assert stream.keyring.open_event(stored(stream)[0]).title == "plain"


# The server's faults.


def test_a_lost_connection_and_forgotten_scripts_are_got_over(server: Server, stream: Stream) -> None:
    """Keys are asked for in the middle of an append."""
    stream.append([observation(creator="ada", title="one")])
    server.client.script_flush()
    server.client.client_kill_filter(_type="normal", skipme=True)

    stream.append([observation(minute=1, creator="bob", title="two")])

    assert [stream.keyring.open_event(event).title for event in stored(stream)] == ["one", "two"]


def test_a_key_that_replicas_do_not_vouch_for_seals_nothing(server: Server) -> None:
    """Else a fail-over could keep the events and lose the only key to them."""
    stream = opened(server, ack=Ack.REPLICA, wait_ms=1)
    with pytest.raises(NotReplicated):
        stream.append([observation(creator="ada", title="t")])
    assert stored(stream) == []


def test_keys_are_wrapped_where_there_is_a_master_key(server: Server) -> None:
    """A copy of the server alone must not open anything."""
    master = base64.b64encode(bytes(32)).decode()
    stream = opened(server, master_key=SecretStr(master))
    stream.append([observation(creator="ada", title="t")])

    (row,) = server.client.hgetall(CREATOR_KEYS).values()
    assert row.startswith(b"wrapped:")
    for other, said in ((None, "has none"), (SecretStr(base64.b64encode(b"x" * 32).decode()), "has another")):
        with pytest.raises(KeysLocked, match=said):
            opened(server, master_key=other).keyring.open_json(stream.read_raw(0)[0][1][1])
    again = opened(server, master_key=SecretStr(master))
    assert again.keyring.open_event(stored(again)[0]).title == "t"
    erased(server)
    assert opened(server).keyring.open_event(stored(stream)[0]).title == ""


def test_a_master_key_that_is_none_is_told_without_showing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error message ends in logs and tickets."""
    for bad in ("secret", base64.b64encode(b"x" * 31).decode(), "é" * 44):
        monkeypatch.setenv("AURASTREAM_MASTER_KEY", bad)
        with pytest.raises(ValueError, match="master_key"):
            Settings()


@pytest.fixture(scope="module", params=EVERY_SERVER)
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    cluster = Cluster(binaries()[request.param])
    yield cluster
    cluster.stop()


@pytest.mark.slow
def test_creators_and_their_erasure_on_a_cluster(cluster: Cluster) -> None:
    """Their keys are in a slot of their own, on another node than most of the log."""
    server = Server(cluster.url)
    stream = open_stream(server, "clips", create=True, partitions=8)
    stream.append(
        [
            observation(clip=f"clip-{n}", creator=f"creator {n % 5}", title=f"title {n % 5}")
            for n in range(100)
        ]
    )

    pseudonym = erase(open_stream(server, OPERATIONS, create=True), "creator 3", why="asked", who="tests")[
        0
    ].subject

    fresh = open_stream(server, "clips")
    events: list[Any] = [entry.event for partition in range(8) for entry in fresh.read(partition)]
    shown = {event.creator: fresh.keyring.open_event(event).title for event in events}
    assert shown[pseudonym] == ""
    assert sorted(shown.values()) == ["", "title 0", "title 1", "title 2", "title 4"]
