"""
Erase a creator: drop the key of the personal fields, and say so in the audit trail.

    find the pseudonym -> erase.lua: key and name dropped, the fact noted, in one -> append CreatorErased
        -> drop the note

Always true: the key is dropped if and only if the fact is noted, and the note stays until the fact is in the
log; its event ID is the pseudonym's, so that it is there once however often a killed erasure is taken up.
Whoever erases next settles what was left. What the server wrote to disk before still holds the key:
``forget_on_disk`` has it write its files anew.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from enum import IntEnum

from redis.exceptions import ResponseError

from aurastream.streams import (
    CREATOR_KEYS,
    CREATORS,
    ERASURES,
    Codec,
    CreatorErased,
    CreatorUnknown,
    Reply,
    Script,
    Server,
    Stream,
    StreamError,
    Wire,
    is_name,
    named_id,
)

TRIES_MAX = 5  # times a creator that changes meanwhile is looked up
SCAN_COUNT = 1_000
BUSY_MAX_S, BUSY_PAUSE_S = 30.0, 0.1  # how long a server that rewrites its files already is asked again

_ERASE = Script(__file__, "erase.lua")
_CODEC = Codec((CreatorErased,))


class EraseAnswer(IntEnum):
    """What erase.lua says."""

    CHANGED = 0
    OK = 1


def erase(
    operations: Stream,
    creator: str,
    *,
    why: str,
    who: str,
    on_step: Callable[[str], None] = lambda step: None,
) -> tuple[CreatorErased, list[CreatorErased]]:
    """Erase the creator. Returns the fact, and those of earlier erasures that were killed before theirs was
    in the log.

    operations: the stream of the audit trail. creator: the platform's id, as given to append, or the
    pseudonym. who: decides. on_step: called with "dropped" and "appended", for tests. Raises CreatorUnknown,
    StreamError for a reason that names the creator, InvalidEvent for one that cannot be kept; and the other
    errors of append, after which the creator is erased, and the next erasure puts the fact into the log.
    """
    settled = list(settle(operations))
    try:
        return _erase(operations, creator, why, who, on_step), settled
    except CreatorUnknown as error:
        if settled:
            names = ", ".join(item.subject for item in settled)
            error.add_note(f"The erasure of {names} had been interrupted; it is in the audit trail now.")
        raise


def _erase(
    operations: Stream, creator: str, why: str, who: str, on_step: Callable[[str], None]
) -> CreatorErased:
    for _ in range(TRIES_MAX):
        name, pseudonym = _find(operations.server, creator)
        if re.search(rf"(?<!\w){re.escape(name.casefold())}(?!\w)", why.casefold()):
            raise StreamError(
                "the reason names the creator, and it stays in the audit trail for good. Nothing was "
                "erased; give one without the name."
            )
        event = CreatorErased(
            event_id=named_id("erase", pseudonym),
            subject=pseudonym,
            occurred_at=datetime.now(UTC),
            source=who,
            why=why,
        )
        note = _CODEC.encode(event)  # checked before anything is dropped: what is noted can be appended
        answer = operations.server.run(_ERASE, (CREATORS, CREATOR_KEYS, ERASURES), (name, pseudonym, note))
        if EraseAnswer(answer) is EraseAnswer.OK:
            on_step("dropped")
            _append(operations, event, on_step)
            return event
    raise StreamError(
        f"the creator got another key {TRIES_MAX} times while it was being erased: others erase it too. "
        "Look again."
    )


def _find(server: Server, creator: str) -> tuple[str, str]:
    """The creator's name and pseudonym, from either of them. Raises CreatorUnknown."""
    if not is_name(creator):
        raise CreatorUnknown(creator)
    stored: Reply = server.client.hget(CREATORS, creator)
    if stored is not None:
        return creator, stored.decode()
    if server.client.hget(
        CREATOR_KEYS, creator
    ):  # nothing leads from a pseudonym to a name but looking at all
        for name, pseudonym in server.client.hscan_iter(CREATORS, count=SCAN_COUNT):
            if pseudonym == creator.encode():
                return name.decode(), creator
    raise CreatorUnknown(creator)


def settle(operations: Stream) -> Iterator[CreatorErased]:
    """Put into the log what earlier erasures noted and did not get to append."""
    notes: Reply = operations.server.client.hvals(ERASURES)
    for raw in notes:
        event = _CODEC.decode(raw, ERASURES)
        if isinstance(event, CreatorErased):
            _append(operations, event)
            yield event


def _append(
    operations: Stream, event: CreatorErased, on_step: Callable[[str], None] = lambda step: None
) -> None:
    operations.append([event])
    on_step("appended")
    operations.server.client.hdel(ERASURES, event.subject)


def forget_on_disk(server: Server) -> dict[str, bool | None]:
    """Ask the server that had the key to write its files anew: aof, rdb -> whether it does; None where it
    keeps no such file.

    False: it may not be asked (a managed server), or was at it already for longer than BUSY_MAX_S. Both are
    done in the background; INFO persistence says when they have ended.
    """
    wire = server.wire(CREATORS)
    try:
        return {
            "aof": _asked(wire, ("CONFIG", "GET", "appendonly"), b"no", ("BGREWRITEAOF",)),
            "rdb": _asked(wire, ("CONFIG", "GET", "save"), b"", ("BGSAVE", "SCHEDULE")),
        }
    finally:
        wire.close()


def _asked(wire: Wire, question: tuple[str, ...], without: bytes, command: tuple[str, ...]) -> bool | None:
    ends = time.monotonic() + BUSY_MAX_S
    while True:
        try:
            answer = wire.ask(question)[0]
            if len(answer) == 2 and answer[1] == without:
                return None
            wire.ask(command)
            return True
        except ResponseError as error:
            # What runs already may have begun before the key was dropped: it has to end, and another one to
            # begin.
            if "in progress" not in str(error) or time.monotonic() > ends:
                return False
        time.sleep(BUSY_PAUSE_S)
