"""
Dead letters as a person sees them: list, show, retry, discard. Each decision and its audit event are one
script (letter.lua).

A decision marks; the processor's host, whichever process that is, acts on it within half a second of running.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

import msgspec

from aurastream.processors import ProcessorError
from aurastream.processors.effects import letters
from aurastream.processors.effects.letters import Letter, LetterPlace
from aurastream.processors.effects.script import EffectKeys
from aurastream.streams import Codec, Event, Keys, Position, Script, Stream, operator

TRIES_MAX = 5  # times a decision is put to a letter that changes meanwhile

RETRY = Script(__file__, "lines.lua", "letter.lua", "retry.lua")
DISCARD = Script(__file__, "lines.lua", "letter.lua", "discard.lua")
_AUDIT = Codec(letters.AUDIT_TYPES)


class DecisionAnswer(IntEnum):
    """What letter.lua, retry.lua and discard.lua say."""

    OK = 0
    CHANGED = 1
    BEHIND = 2
    DUE = 3


class DeadLetter(msgspec.Struct, frozen=True):
    """A letter at its place. state: parked, waiting, due (it runs again), or damaged: an entry a projection
    could not use.
    """

    group: str
    stream: str
    partition: int
    position: str
    state: str
    subject: str
    reason: str
    event_id: str = ""
    type: str = ""
    attempts: int = 0
    retries: int = 0
    at: str = ""
    traceback: str = ""


class DeadLetterUnknown(ProcessorError):
    """There is no such dead letter, or no longer."""

    def __init__(self, group: str, place: str) -> None:
        super().__init__(
            f"{group} has no dead letter at {place}. `aurastream dead list` shows those there are."
        )
        self.group, self.place = group, place


class DeadLetterBehind(ProcessorError):
    """The letter waits for another one."""

    def __init__(self, position: str, subject: str, first: str) -> None:
        super().__init__(
            f"{position} waits behind {first}, the parked event of {subject!r}. "
            "Retry or discard that one: then this one runs in its turn."
        )
        self.position, self.first = position, first


class DeadLetterBusy(ProcessorError):
    """Somebody else decides, or its processor is at it."""

    def __init__(self, position: str) -> None:
        super().__init__(
            f"{position} changes all the time: its processor or somebody else is at it. Look again with "
            "`aurastream dead list`."
        )
        self.position = position


def list_letters(stream: Stream, group: str) -> Iterator[DeadLetter]:
    """A group's dead letters of a stream, by partition in the order of the log; sealed reasons are opened."""
    for keys in stream.keys:
        for shown, _ in stored_letters(stream, keys, group):
            yield shown


class StoredLetter(NamedTuple):
    """A letter as it is stored, and what it says."""

    position: str
    text: bytes
    letter: Letter


def stored_letters(
    stream: Stream, keys: Keys, group: str
) -> Iterator[tuple[DeadLetter, StoredLetter | None]]:
    """Those of a partition, each also as it is stored; None for a projection's, which is a plain reason."""
    at, client = EffectKeys.of(keys, group), stream.server.client
    stored: dict[bytes, bytes] = client.hgetall(at.dead)  # type: ignore[assignment]
    due: set[bytes] = set(client.hkeys(at.due)) if stored else set()  # type: ignore[arg-type]
    begun: set[str] = set()  # lines whose first letter was shown
    for position in sorted(stored, key=Position.parse):
        letter = letters.letter_of(stored[position])
        place = (group, keys.stream, keys.partition, position.decode())
        if letter is None:
            reason = stream.keyring.open_text(stored[position].decode(errors="replace"))
            damaged = DeadLetter(*place, "damaged", "", reason)
            yield damaged, None
            continue
        state = "waiting" if letter.line in begun else "due" if letter.line.encode() in due else "parked"
        begun.add(letter.line)
        shown = _shown(place, state, letter)
        reason = stream.keyring.open_text(shown.reason)
        held = StoredLetter(shown.position, stored[position], letter)
        yield msgspec.structs.replace(shown, reason=reason), held


def _shown(place: tuple[str, str, int, str], state: str, letter: Letter) -> DeadLetter:
    return DeadLetter(
        *place,
        state,
        letter.subject,
        letter.reason,
        letter.event_id,
        letter.type,
        letter.attempts,
        letter.retries,
        letter.at.isoformat(),
        letter.traceback,
    )


def retry(stream: Stream, operations: Stream, place: LetterPlace, why: str = "") -> bool:
    """Let the first letter of a line run again, then those behind it. False where they do already.

    Raises DeadLetterUnknown, DeadLetterBehind, DeadLetterBusy.
    """
    desk = _Desk(stream, operations, place)
    for _ in range(TRIES_MAX):
        text, letter = desk.read()
        after = msgspec.structs.replace(letter, retries=letter.retries + 1)
        event = letters.retried(desk.at, after, operator(), why)
        answer, first = desk.decide(RETRY, text, letter, event, after.text())
        if answer is DecisionAnswer.BEHIND:
            raise DeadLetterBehind(place.position, letter.subject, first)
        if answer is not DecisionAnswer.CHANGED:
            return answer is DecisionAnswer.OK
    raise DeadLetterBusy(place.position)


def discard(stream: Stream, operations: Stream, place: LetterPlace, why: str) -> None:
    """Drop a letter: it gets no effect. What waited behind it, where it was the first, runs.

    Raises DeadLetterUnknown, DeadLetterBusy.
    """
    desk = _Desk(stream, operations, place)
    for _ in range(TRIES_MAX):
        text, letter = desk.read()
        event = letters.discarded(desk.at, letter, operator(), why)
        if desk.decide(DISCARD, text, letter, event)[0] is DecisionAnswer.OK:
            return
    raise DeadLetterBusy(place.position)


class _DecisionHead(msgspec.Struct, frozen=True):
    """See letter.lua."""

    position: str
    line: str
    event_id: str


def decision(
    at: EffectKeys, stored: StoredLetter, event: Event, after: str
) -> tuple[tuple[str, ...], tuple[object, ...]]:
    """Keys and arguments of letter.lua. stored: the letter as it was read. after: as it is from then on."""
    head = msgspec.msgpack.encode(_DecisionHead(stored.position, stored.letter.line, event.event_id))
    keys = (at.cursor, at.attempts, at.dead, at.line, at.due, at.outbox, at.begun)
    return keys, (head, stored.text, _AUDIT.encode(event), after)


class _Desk:
    """Where a decision about one letter is made."""

    def __init__(self, stream: Stream, operations: Stream, place: LetterPlace) -> None:
        keys = stream.keys[place.partition]
        self.at = letters.LetterAt(place.group, keys, place.position)
        self._keys = EffectKeys.of(keys, place.group)
        self._server, self._operations = stream.server, operations

    def read(self) -> tuple[bytes, Letter]:
        """The letter as it is stored, and what it says. Raises DeadLetterUnknown."""
        text = self._server.client.hget(self._keys.dead, self.at.position)
        letter = letters.letter_of(text) if isinstance(text, bytes) else None
        if letter is None or not isinstance(text, bytes):
            raise DeadLetterUnknown(self.at.processor, f"{self.at.keys.where}/{self.at.position}")
        return text, letter

    def decide(
        self, script: Script, text: bytes, letter: Letter, event: Event, after: str = ""
    ) -> tuple[DecisionAnswer, str]:
        """The script, then its audit event into the log; if this process ends before, the host appends it."""
        at = self._keys
        call = decision(at, StoredLetter(self.at.position, text, letter), event, after)
        reply = self._server.run(script, *call)
        answer = DecisionAnswer(reply[0])
        if answer is DecisionAnswer.OK:
            self._operations.append([event])
            self._server.client.hdel(at.outbox, event.event_id)
        return answer, reply[1].decode()
