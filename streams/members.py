"""
Who is in the fleet, what each host can run, and what troubles it: the cards that hosts show each other.

    a host, at every tick of its leases -> members.lua: I live, this is my card
        -> who lives, and their cards where something changed
    whoever looks (status, /fleet) -> read_members -> every living host, with its card

One place for the whole fleet (the tag {fleet}), since a share is worked out among those who can run a lane,
of whatever group. A host that dies is forgotten with its card after its own lease. Readers pass over fields
of a card that they do not know, so hosts of several builds share.

Decision (2026-11): one card a host, sent when it changes, and a counter by which the others see that
something did. Refused: a member set per (group, stream), which is a key and a call for each, in as many slots
(640 at 64 partitions x 10 groups); a channel (PUBLISH), which tells nobody who was away.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from aurastream.streams.connection import Server
from aurastream.streams.drive import Ask, Command, Reply
from aurastream.streams.keys import CARDS, CHANGES, HOSTS, old_members_key
from aurastream.streams.wire import Script

TROUBLES_MAX = 100  # on a card: the others are counted by the cursors that stand still
CLOCK_MS = 1_000  # in which a living host puts its mark right after the clock stepped back
TEXT_MAX = 4_000  # characters of a traceback on a card

_MEMBERS = Script(__file__, "members.lua")
_encode = msgspec.json.Encoder().encode


class Trouble(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a lane does not advance. position, event_id: of the entry it is stuck at, "" where it is none.
    traceback: its last TEXT_MAX characters. since_ms: by the host's clock.
    """

    group: str
    stream: str
    partition: int
    reason: str
    position: str = ""
    event_id: str = ""
    traceback: str = ""
    since_ms: int = 0


class HostCard(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a host says of itself. kind: run, until-idle, or app for a stranger's Faust app. started_ms: by
    its clock. offers: stream -> group -> partitions: all lanes that it can run. troubles: of those it holds.
    notes: sentences on what it cannot run and why.
    """

    host: str
    kind: str = "run"
    build: str = ""
    pid: int = 0
    started_ms: int = 0
    lease_ms: int = 0
    offers: dict[str, dict[str, int]] = {}
    troubles: tuple[Trouble, ...] = ()
    notes: tuple[str, ...] = ()

    def offers_lane(self, group: str, stream: str) -> bool:
        """Whether it can run the group's lanes of this stream."""
        return group in self.offers.get(stream, ())


class Member(NamedTuple):
    """A living host. left_ms: until it is forgotten, unless it says that it lives."""

    card: HostCard
    left_ms: int


class Heard(NamedTuple):
    """An answer of members.lua. cards: None where those known still hold. is_missing: ours is not there."""

    now_ms: int
    changes: int
    is_missing: bool
    cards: dict[str, HostCard] | None


def saying(host: str, lease_ms: int, card: HostCard | None = None, known: int = -1) -> Ask:
    """The question. lease_ms: 0 leaves. card: None where it is as before. known: changes whose cards the
    caller has.
    """
    text = b"" if card is None else _encoded(card)
    return Ask(HOSTS, _MEMBERS.call((HOSTS, CARDS, CHANGES), (host, lease_ms, text, known)))


def _encoded(card: HostCard) -> bytes:
    """Whatever its texts are: a host whose card cannot be said would lose all its leases."""
    try:
        return _encode(card)
    except UnicodeEncodeError:  # lone surrogates, as of file names that are no UTF-8
        return json.dumps(msgspec.to_builtins(card), ensure_ascii=False).encode(errors="replace")


def heard(reply: Reply, known: int) -> Heard:
    """Its answer."""
    now_ms, changes, is_missing, flat = reply
    number = int(changes)
    cards = None if number == known else _cards(dict(zip(flat[::2], flat[1::2], strict=True)))
    return Heard(int(now_ms), number, bool(is_missing), cards)


def _cards(rows: Mapping[bytes, bytes]) -> dict[str, HostCard]:
    """By host. A row that is none of ours is a host that can run nothing."""
    cards = {}
    for name, row in rows.items():
        host = name.decode(errors="backslashreplace")
        try:
            cards[host] = msgspec.json.decode(row.partition(b" ")[2], type=HostCard)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            cards[host] = HostCard(host, kind="unreadable")
    return cards


def read_members(server: Server) -> list[Member]:
    """The living hosts, by name."""
    with server.client.pipeline(transaction=False) as pipeline:
        for ask in members_asks():
            pipeline.execute_command(*ask.command)
        answers = pipeline.execute()
    seconds, microseconds = server.client.time()
    return members_of(answers, int(seconds) * 1000 + int(microseconds) // 1000)


def members_asks() -> list[Ask]:
    """What ``members_of`` makes the living hosts of; reads that a full server does not refuse."""
    return [Ask(HOSTS, ("ZRANGE", HOSTS, 0, -1, "WITHSCORES")), Ask(CARDS, ("HGETALL", CARDS))]


def members_of(answers: Sequence[Reply], now_ms: int) -> list[Member]:
    """The living hosts, by name. A mark further ahead than its host's lease was left by one that died before
    the server's clock stepped back.
    """
    marks, rows = answers
    cards = _cards(rows if isinstance(rows, dict) else dict(zip(rows[::2], rows[1::2], strict=True)))
    members = []
    for name, until in _pairs(marks):
        host = name.decode(errors="backslashreplace")
        card, left_ms = cards.get(host, HostCard(host)), int(until) - now_ms
        if 0 < left_ms <= (card.lease_ms or left_ms) + CLOCK_MS:
            members.append(Member(card, left_ms))
    return sorted(members, key=lambda member: member.card.host)


def _pairs(marks: Reply) -> list[tuple[bytes, float]]:
    """Members and scores, as redis-py makes them or as the server answers."""
    if marks and not isinstance(marks[0], (tuple, list)):
        marks = list(zip(marks[::2], marks[1::2], strict=True))
    return [(name, float(score)) for name, score in marks]


def old_members(group: str, now_ms: int) -> Ask:
    """How many hosts of builds before this scheme live in a group."""
    command: Command = ("ZCOUNT", old_members_key(group), f"({now_ms}", "+inf")
    return Ask(old_members_key(group), command)
