"""
Dead letters as a person sees them: list, show, retry, discard. Each decision and its audit event are one
script (dead.lua).

A decision marks; the processor's host, whichever process that is, acts on it within half a second of
running.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import Any

import msgspec

from aurastream.processors import ProcessorError
from aurastream.processors.effects import letters
from aurastream.processors.effects.lane import effect_keys
from aurastream.processors.effects.letters import Letter
from aurastream.streams import Codec, Event, Keys, Script, Stream, as_pair, operator

TRIES_MAX = 5  # times a decision is put to a letter that changes meanwhile

_DEAD = Script(__file__, "dead.lua")


class DecisionAnswer(IntEnum):
    """What dead.lua says."""

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
        at = effect_keys(keys, group)
        stored: dict[bytes, bytes] = stream.server.client.hgetall(at["dead"])  # type: ignore[assignment]
        if not stored:
            continue
        due: set[bytes] = set(stream.server.client.hkeys(at["due"]))  # type: ignore[arg-type]
        seen: set[str] = set()
        for position in sorted(stored, key=lambda item: as_pair(item.decode())):
            letter = letters.letter_of(stored[position])
            shown = _shown(keys, group, position.decode(), letter, stored[position], seen, due)
            yield msgspec.structs.replace(shown, reason=stream.keyring.open_text(shown.reason))


def _shown(
    keys: Keys, group: str, position: str, letter: Letter | None, text: bytes, seen: set[str], due: set[bytes]
) -> DeadLetter:
    place = (group, keys.stream, keys.partition, position)
    if letter is None:
        return DeadLetter(*place, "damaged", "", text.decode(errors="replace"))
    state = "waiting" if letter.line in seen else "due" if letter.line.encode() in due else "parked"
    seen.add(letter.line)
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
    )


def retry(
    stream: Stream, operations: Stream, group: str, partition: int, position: str, why: str = ""
) -> bool:
    """Let the first letter of a line run again, then those behind it. False where they do already.

    Raises DeadLetterUnknown, DeadLetterBehind, DeadLetterBusy.
    """
    desk = _Desk(stream, operations, group, partition, position)
    for _ in range(TRIES_MAX):
        text, letter = desk.read()
        after = msgspec.structs.replace(letter, retries=letter.retries + 1)
        event = letters.retried(group, desk.keys, position, after, operator(), why)
        answer, first = desk.decide("retry", text, letter, after.text(), event)
        if answer is DecisionAnswer.BEHIND:
            raise DeadLetterBehind(position, letter.subject, first)
        if answer is not DecisionAnswer.CHANGED:
            return answer is DecisionAnswer.OK
    raise DeadLetterBusy(position)


def discard(stream: Stream, operations: Stream, group: str, partition: int, position: str, why: str) -> None:
    """Drop a letter: it gets no effect. What waited behind it, where it was the first, runs.

    Raises DeadLetterUnknown, DeadLetterBusy.
    """
    desk = _Desk(stream, operations, group, partition, position)
    for _ in range(TRIES_MAX):
        text, letter = desk.read()
        event = letters.discarded(group, desk.keys, position, letter, operator(), why)
        if desk.decide("discard", text, letter, "", event)[0] is DecisionAnswer.OK:
            return
    raise DeadLetterBusy(position)


class _Desk:
    """Where a decision about one letter is made."""

    def __init__(self, stream: Stream, operations: Stream, group: str, partition: int, position: str) -> None:
        self.keys = stream.keys[partition]
        self._stream, self._operations, self._group, self._position = stream, operations, group, position
        self._at = effect_keys(self.keys, group)

    def read(self) -> tuple[bytes, Letter]:
        text: Any = self._stream.server.client.hget(self._at["dead"], self._position)
        letter = letters.letter_of(text) if text is not None else None
        if letter is None:
            raise DeadLetterUnknown(self._group, f"{self.keys.where}/{self._position}")
        return text, letter

    def decide(
        self, verb: str, text: bytes, letter: Letter, after: str, event: Event
    ) -> tuple[DecisionAnswer, str]:
        """The script, then its audit event into the log; should this process end in between, the host
        appends it.
        """
        keys = [self._at[name] for name in ("cursor", "attempts", "dead", "line", "due", "outbox")]
        raw = Codec(letters.AUDIT_TYPES).encode(event)
        reply = self._stream.server.run(
            _DEAD, keys, (verb, self._position, letter.line, text, after, event.event_id, raw)
        )
        answer = DecisionAnswer(reply[0])
        if answer is DecisionAnswer.OK:
            self._operations.append([event])
            self._stream.server.client.hdel(self._at["outbox"], event.event_id)
        return answer, reply[1].decode() if len(reply) > 1 else ""
