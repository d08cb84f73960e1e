"""
The sealed form of a personal text. Pure: which key belongs to whom is keyring.py's to know.

    text -> AES-SIV under the creator's key -> sealed:1:<pseudonym>:<base64url> -> text

Always true: the same text under the same key is the same token, so that polls that repeat a title encode
alike, a repeated step derives the same event, and a fold of tokens is as deterministic as one of texts. Who
holds two tokens learns whether their texts are equal, and about how long they are; nothing else without the
key. Every byte of a token is authenticated, its pseudonym too.
Nothing here raises on garbage: what is no token of ours opens to None.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error

KEY_BYTES = 64  # AES-256-SIV: one half authenticates, the other encrypts
TOKEN = re.compile(
    rb"sealed:1:([0-9a-f]{16}):([A-Za-z0-9_-]{23,})"
)  # 23: one byte and its 16 of authentication
RESERVED = "sealed:"  # begins every token, of this form and of later ones
_RESERVED = re.compile(r"sealed:[0-9]")


def is_reserved(text: str) -> bool:
    """Whether the text begins as a token does. A title such as "sealed: a box" does not."""
    return text.startswith(RESERVED) and _RESERVED.match(text) is not None


class Cipher:
    """Seals and opens under one key. key: KEY_BYTES."""

    def __init__(self, pseudonym: str, key: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import (
            AESSIV,
        )  # here: 30 ms that a process without creators need not spend

        self.key, self._siv = key, AESSIV(key)
        self._prefix, self._associated = f"sealed:1:{pseudonym}:", [f"1:{pseudonym}".encode()]

    def seal(self, text: str) -> str:
        """The token; "" stays "". Raises UnicodeEncodeError for half a surrogate pair."""
        if not text:
            return ""
        return (
            self._prefix
            + urlsafe_b64encode(self._siv.encrypt(text.encode(), self._associated)).rstrip(b"=").decode()
        )

    def open(self, sealed: bytes) -> str | None:
        """The text from a token's last part; None when it was not sealed with this key."""
        from cryptography.exceptions import InvalidTag

        try:
            return self._siv.decrypt(
                urlsafe_b64decode(sealed + b"=" * (-len(sealed) % 4)), self._associated
            ).decode()
        except (
            Base64Error,
            ValueError,
            InvalidTag,
        ):  # ValueError: base64 of an impossible length, or no UTF-8
            return None
