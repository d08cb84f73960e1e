"""
Pseudonyms and keys of creators: on the server for good, in a process for KEY_AGE_S.

    creator   -> keyring.lua -> pseudonym and key, made where it has none       to seal
    pseudonym -> HMGET       -> key, or none once it is erased                  to open

Always true: of two processes that meet a new creator at once both get the same key; a key is used for at most
KEY_AGE_S without asking whether it is still there. The generators ask nothing themselves: they yield (routing
key, command) pairs and are sent the answers; ``answered`` asks for them.
"""

from __future__ import annotations

import secrets
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable
from functools import cached_property, partial
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import msgspec

from aurastream.streams.drive import Ask, Asking, Command, T, drive, sound
from aurastream.streams.errors import KeysLocked, NotReplicated, StreamError
from aurastream.streams.keys import CREATOR_KEYS, CREATORS
from aurastream.streams.sealing import KEY_BYTES, Cipher
from aurastream.streams.settings import Ack, Settings
from aurastream.streams.wire import Script
from aurastream.streams.wires import Wires

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESSIV

KEY_AGE_S = 5.0  # how long a key is used before the server is asked whether it is still there
KEPT_MAX = 10_000  # keys, and sealed texts, a process remembers
ASK_MAX = 500  # creators a question
PSEUDONYM_BYTES = 8  # the script lets no two creators have the same

_TAKE = Script(__file__, "keyring.lua")
_WRAPPED = b"wrapped:"
K = TypeVar("K")
V = TypeVar("V")


class CreatorKey(msgspec.Struct, frozen=True):
    """What the server said of a creator. cipher: None once erased. until: the clock's time up to which it is
    used.
    """

    pseudonym: str
    cipher: Cipher | None
    until: float


NOBODY = CreatorKey("", None, 0.0)  # no pseudonym, and none was to be made


class Creators:
    """The creators as one process knows them. forgotten: called when a key is gone."""

    def __init__(self, wires: Wires, settings: Settings, forgotten: Callable[[], None]) -> None:
        self._wires, self._settings, self._forgotten = wires, settings, forgotten
        self._named: dict[str, CreatorKey] = {}  # by creator
        self._keyed: dict[str, CreatorKey] = {}  # by pseudonym

    def taken(
        self, creators: set[str], stored: Callable[[], set[str]], ack: Ack
    ) -> Asking[dict[str, CreatorKey]]:
        """Pseudonym and key of every creator. stored: those who must be pseudonyms already, so that none is
        made for them.

        Raises NotReplicated where a new key is not as safe as the events that it seals are to be; KeysLocked;
        StreamError where a pseudonym was offered that another has, which with a million creators happens once
        in 10^13 times.
        """
        known = self._young(self._named, creators)
        missing = list(creators - known.keys())
        moved = stored() if missing else set()
        for start in range(0, len(missing), ASK_MAX):
            part = missing[start : start + ASK_MAX]
            answers = yield [Ask(CREATORS, command) for command in self._question(part, moved, ack)]
            sound(answers)
            if ack is Ack.REPLICA and int(answers[1]) < self._settings.replicas:
                raise NotReplicated(self._settings.replicas, int(answers[1]), self._settings.wait_ms)
            for creator, pseudonym, key in zip(part, answers[0][::2], answers[0][1::2], strict=True):
                if pseudonym:
                    known[creator] = self._named[creator] = self._learn(pseudonym.decode(), key)
                elif creator in moved:
                    known[creator] = NOBODY
                else:
                    raise StreamError(
                        "the pseudonym offered for a new creator is another's already; append again."
                    )
        shrink(self._named)
        return known

    def looked(self, pseudonyms: Iterable[str]) -> Asking[dict[str, CreatorKey]]:
        """What is known of the pseudonyms. Raises KeysLocked."""
        wanted = set(pseudonyms)
        known = self._young(self._keyed, wanted)
        missing = list(wanted - known.keys())
        for start in range(0, len(missing), ASK_MAX):
            part = missing[start : start + ASK_MAX]
            answers = yield [Ask(CREATOR_KEYS, ("HMGET", CREATOR_KEYS, *part))]
            sound(answers)
            for pseudonym, key in zip(part, answers[0], strict=True):
                known[pseudonym] = self._learn(pseudonym, key or b"")
        shrink(self._keyed)
        return known

    def answered(self, asking: Asking[T]) -> T:
        """Ask the server until the generator ends; its result."""
        return drive(asking, partial(self._wires.ask, what="asking for creators' keys"))

    def _young(self, kept: dict[str, CreatorKey], names: set[str]) -> dict[str, CreatorKey]:
        now = time.monotonic()
        return {name: known for name in names if (known := kept.get(name)) is not None and known.until > now}

    def _question(self, creators: list[str], moved: set[str], ack: Ack) -> list[Command]:
        args: list[str | bytes] = [msgspec.msgpack.encode({"rewrite": ack is Ack.REPLICA})]
        for creator in creators:
            pseudonym = "" if creator in moved else secrets.token_hex(PSEUDONYM_BYTES)
            args += (
                creator,
                pseudonym,
                self._wrapped(pseudonym, secrets.token_bytes(KEY_BYTES)) if pseudonym else b"",
            )
        take = _TAKE.call((CREATORS, CREATOR_KEYS), args)
        wait = ("WAIT", self._settings.replicas, self._settings.wait_ms)
        return [take, wait] if ack is Ack.REPLICA else [take]

    def _learn(self, pseudonym: str, stored: bytes) -> CreatorKey:
        """From the server's row. A cipher stays the same object for as long as its key does."""
        before = self._keyed.get(pseudonym)
        key = self._unwrapped(pseudonym, stored)
        cipher = before.cipher if before is not None else None
        if cipher is None or cipher.key != key:
            if cipher is not None:
                self._forgotten()
            cipher = Cipher(pseudonym, key) if key else None
        known = self._keyed[pseudonym] = CreatorKey(pseudonym, cipher, time.monotonic() + KEY_AGE_S)
        return known

    def _wrapped(self, pseudonym: str, key: bytes) -> bytes:
        """As the server keeps it: under the master key, where there is one."""
        if self._master is None:
            return b64encode(key)
        return _WRAPPED + b64encode(self._master.encrypt(key, [pseudonym.encode()]))

    def _unwrapped(self, pseudonym: str, stored: bytes) -> bytes:
        """The key; b"" when it is erased. Raises KeysLocked without the master key it was wrapped with."""
        if not stored.startswith(_WRAPPED):
            return b64decode(stored)
        from cryptography.exceptions import InvalidTag

        if self._master is None:
            raise KeysLocked("has none")
        try:
            return bytes(self._master.decrypt(b64decode(stored[len(_WRAPPED) :]), [pseudonym.encode()]))
        except InvalidTag as error:
            raise KeysLocked("has another") from error

    @cached_property
    def _master(self) -> AESSIV | None:
        if self._settings.master_key is None:
            return None
        from cryptography.hazmat.primitives.ciphers.aead import AESSIV

        return AESSIV(b64decode(self._settings.master_key.get_secret_value()))


def shrink(kept: dict[K, V]) -> None:
    """Forget the older half of what is kept, once it is too much."""
    if len(kept) > KEPT_MAX:
        for name in list(islice(kept, len(kept) - KEPT_MAX // 2)):
            del kept[name]
