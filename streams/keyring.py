"""
Personal fields: sealed under a key of their creator's own, so that dropping the key erases them everywhere at
once.

    append   event -> creator's pseudonym and key (keyring.lua, kept for KEY_AGE_S) -> tokens in the place of
             texts -> the log
    display  JSON or text as stored -> every token opened, or "" once the key is dropped

Always true: what lies in the log, in views, archives, checkpoints and dead letters is the token; the text is
made at the edge, by who shows it. So an erasure (erasure.py) is one script: it changes no entry, no state and
no archived byte, view == fold(log) holds before, during and after it, and a rebuild gives the same bytes. A
token is never sealed again: stored events that are appended elsewhere (a replay, an archive read back) keep
theirs. Running processes forget an erased key within KEY_AGE_S of their next use; what they append until then
is sealed with it, and so erased too.

Where the keys are: the hash aura:{creators}:names has creator -> pseudonym, aura:{creators}:keys pseudonym ->
    key, "" once erased.
The pseudonym is random, so an event names nobody once the row in names is gone; a fold may count by it. A
creator who is observed again after an erasure gets a new pseudonym and a new key: whoever erases stops the
producers first.

Decision (2026-11): crypto-shredding through and through. Refused: rewriting log, archive and views, which
breaks the chain of hashes and the equation while it runs; texts in the views and tokens in the log, where a
rebuild would differ from the live view and an erasure would have to find every row. The price: folds and
upcasters see tokens, which they may only carry whole, and so does redis-cli.
Decision (2026-11): AES-256-SIV, deterministic, with a random key per creator. Refused: AES-GCM, whose fresh
nonce makes every poll's title another text, so that equal states differ, and whose repeated nonce would be
fatal.
Decision (2026-11): what a handler says of a creator's event is sealed whole, but for the name of the
exception. Refused: to replace the event's texts in it, as handlers cut, quote and translate them.
Measured (append, 500 a call, 500 creators, 10,000 titles; client us an event): 2.3 without creators, as
before; 5.7 with, where the text was met before, else 13; of AES itself 1.1 a text. Opening: 3 to 5 us a state
of two texts. The importer names Chzzk's and YouTube's channels: 549,296 rows with titles take 7.9 us a row
instead of 6.0, 440 bytes of JSON instead of 299, 514 of memory instead of 370.

Not sealed: subject, event_id, source and whatever a class does not declare; what was appended without a
creator; messages that Faust apps send by themselves (processors/transport/producer.py) and Kafka topics,
whose producers may call ``sealed`` first; cells of a damaged row that an import's refusal quotes; names of
creators in the server's slow log. Backups and replicas' files from before an
erasure still hold the key: with AURASTREAM_MASTER_KEY they hold it wrapped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import partial
from operator import attrgetter
from typing import cast

import msgspec

from aurastream.streams.creators import KEY_AGE_S, CreatorKey, Creators, shrink
from aurastream.streams.drive import Asking
from aurastream.streams.errors import InvalidEvent
from aurastream.streams.events import TEXT_MAX, Event
from aurastream.streams.personal_fields import Personal
from aurastream.streams.sealing import TOKEN, Cipher, is_reserved
from aurastream.streams.settings import Ack, Settings
from aurastream.streams.wires import Wires

__all__ = ["KEY_AGE_S", "Keyring"]

REASON_BYTES_MAX = 600  # of a sealed reason: its token fits a ShortText

_BEGINS = b"sealed:1:"
_NOTHING: tuple[None, None] = (None, None)


class Keyring:
    """Seals and opens personal fields. One per stream object. Not for several threads."""

    def __init__(self, wires: Wires, settings: Settings) -> None:
        self._settings = settings
        self._getters: dict[type[Event], Callable[[Event], tuple[str, ...]]] = {}
        self._memo: dict[
            tuple[type[Event], tuple[str, ...]], tuple[Cipher | None, dict[str, str] | None]
        ] = {}
        self._texts: dict[tuple[Cipher, bytes], bytes] = {}
        self._creators = Creators(wires, settings, self._forget)

    def _forget(self) -> None:
        self._memo.clear()
        self._texts.clear()

    def sealed(self, batch: list[Event], ack: Ack | None = None) -> list[Event]:
        """The events as they are stored. Raises InvalidEvent, KeysLocked, and what asking raises."""
        made: list[Event] = self._creators.answered(self.sealing(batch, ack))
        return made

    def sealing(self, batch: list[Event], ack: Ack | None = None) -> Asking[list[Event]]:
        """``sealed`` for who asks the server for us: yields (routing key, command) pairs, is sent answers."""
        every = cast(list[Personal], batch)
        about = [event for event in every if event.personal and event.creator]
        if not about:
            return batch
        names = {event.creator for event in about if isinstance(event.creator, str)}
        creators = set(filter(is_name, names))
        stored = partial(_pseudonyms, about)
        known = yield from self._creators.taken(creators, stored, ack or self._settings.ack)
        return [
            self._stored(event, index, known) if event.personal and event.creator else batch[index]
            for index, event in enumerate(every)
        ]

    def _stored(self, personal: Personal, index: int, creators: dict[str, CreatorKey]) -> Event:
        """The event with its tokens. One whose fields are no texts stays as it is: encoding refuses it."""
        event = cast(Event, personal)
        kind = type(event)
        try:
            texts = self._getter(kind)(event)
            known = creators[texts[0]]
            cipher, changes = self._memo.get((kind, texts), _NOTHING)
            if changes is None or cipher is not known.cipher:
                changes = self._tokens(personal, index, known, texts)
                self._memo[kind, texts] = (known.cipher, changes)
                shrink(self._memo)
        except (TypeError, KeyError, AttributeError, UnicodeEncodeError):
            return event
        return msgspec.structs.replace(event, **changes)

    def _tokens(
        self, event: Personal, index: int, known: CreatorKey, texts: tuple[str, ...]
    ) -> dict[str, str]:
        """What changes in the event when it is stored: its creator, and its personal fields."""
        changes = {"creator": known.pseudonym}
        for field, text in zip(event.personal, texts[1:], strict=True):
            if is_reserved(text):
                self._check_token(event, index, field, text, known)
                changes[field] = text
            elif len(text) > TEXT_MAX:
                raise InvalidEvent(
                    event.event_id, f"Expected `str` of length <= {TEXT_MAX} - at `$.{field}`", index
                )
            elif text and known.cipher is None:
                raise InvalidEvent(
                    event.event_id,
                    f"{field} is about a creator who was erased meanwhile; leave it out",
                    index,
                )
            elif text and known.cipher is not None:
                changes[field] = known.cipher.seal(text)
        return changes

    def _check_token(self, event: Personal, index: int, field: str, text: str, known: CreatorKey) -> None:
        """Of a text that begins as a token does: it must be one, of the event's own pseudonym, which must be
        known or erased.
        """
        match = TOKEN.fullmatch(text.encode())
        is_own = match is not None and match[1].decode() == known.pseudonym == event.creator
        if match is None or not is_own or (known.cipher is not None and known.cipher.open(match[2]) is None):
            shown = f"{field} begins as a sealed text does ({text[:12]}..)"
            raise InvalidEvent(
                event.event_id,
                f"{shown}, and was not sealed for its creator on this server; send the text itself",
                index,
            )

    def _getter(self, kind: type[Event]) -> Callable[[Event], tuple[str, ...]]:
        getter = self._getters.get(kind)
        if getter is None:
            getter = self._getters[kind] = attrgetter("creator", *kind.personal)
        return getter

    def open_json(self, raw: bytes) -> bytes:
        """JSON as stored, with every sealed text opened; what was erased, or was never sealed here, becomes
        "".
        """
        return self.open_each([raw])[0] if _BEGINS in raw else raw

    def open_each(self, raws: Iterable[bytes]) -> list[bytes]:
        """``open_json`` of many, with one question for all their keys."""
        shown = list(raws)
        sealed = {index: TOKEN.split(raw) for index, raw in enumerate(shown) if _BEGINS in raw}
        known = self._creators.answered(
            self._creators.looked(name.decode() for parts in sealed.values() for name in parts[1::3])
        )
        for index, parts in sealed.items():  # a part in plain, pseudonym, sealed text, a part in plain ..
            texts = [
                self._escaped(known[name.decode()], text)
                for name, text in zip(parts[1::3], parts[2::3], strict=True)
            ]
            shown[index] = b"".join(
                [part for pair in zip(parts[::3], [*texts, b""], strict=True) for part in pair]
            )
        return shown

    def _escaped(self, known: CreatorKey, sealed: bytes) -> bytes:
        """The text as JSON has it between its quotes."""
        if known.cipher is None:
            return b""
        text = self._texts.get((known.cipher, sealed))
        if text is None:
            text = self._texts[known.cipher, sealed] = msgspec.json.encode(known.cipher.open(sealed) or "")[
                1:-1
            ]
            shrink(self._texts)
        return text

    def open_text(self, text: str) -> str:
        """A text as stored, or one with tokens in it, as ``open_json``."""
        if "sealed:1:" not in text:
            return text
        raw = msgspec.json.encode(text.encode("utf-8", "backslashreplace").decode())
        return msgspec.json.decode(self.open_json(raw), type=str)

    def open_event(self, event: Event) -> Event:
        """A stored event with its personal fields opened; its creator stays the pseudonym."""
        opened: Event = self._creators.answered(self.opening(event))
        return opened

    def opening(self, event: Event) -> Asking[Event]:
        """``open_event`` for who asks the server for us, as ``sealing``."""
        sealed = {
            field: match
            for field in event.personal
            if (match := TOKEN.fullmatch(getattr(event, field).encode())) is not None
        }
        if not sealed:
            return event
        known = yield from self._creators.looked({match[1].decode() for match in sealed.values()})
        return msgspec.structs.replace(
            event, **{field: _opened(known, match) for field, match in sealed.items()}
        )

    def sealing_reason(self, pseudonym: str, reason: str) -> Asking[str]:
        """What a handler said of a creator's event, as it may be stored: sealed whole; "" when the key is
        dropped. As ``sealing``.
        """
        known = (yield from self._creators.looked({pseudonym}))[pseudonym]
        text = reason.encode("utf-8", "backslashreplace")[:REASON_BYTES_MAX].decode("utf-8", "ignore")
        return known.cipher.seal(text) if known.cipher is not None else ""


def is_name(creator: str) -> bool:
    """Whether encoding will accept it, so that no key is made for what it refuses."""
    try:
        return len(creator) <= TEXT_MAX and bool(creator.encode())
    except UnicodeEncodeError:
        return False


def _pseudonyms(events: list[Personal]) -> set[str]:
    """Creators of events with a field that looks sealed: they are pseudonyms, or the event is refused."""
    return {
        event.creator
        for event in events
        if isinstance(event.creator, str)
        and any(isinstance(t := getattr(event, f), str) and is_reserved(t) for f in event.personal)
    }


def _opened(known: dict[str, CreatorKey], match: re.Match[bytes]) -> str:
    cipher = known[match[1].decode()].cipher
    return (cipher.open(match[2]) if cipher is not None else None) or ""
