"""
Signatures of manifests: ed25519 over the 32 bytes of a manifest's hash, and the keys for it, as PEM files.

One signed manifest vouches for all before it, as each names the hash of the one before.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from aurastream.streams import StreamError
from aurastream.streams.archive.manifest import Manifest

if TYPE_CHECKING:  # 30 ms that who signs nothing need not spend
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey


def sign(manifest: Manifest, key: Ed25519PrivateKey) -> Manifest:
    """The same with its signature."""
    return msgspec.structs.replace(manifest, signature=key.sign(bytes.fromhex(manifest.hash)).hex())


def is_signed_by(manifest: Manifest, key: Ed25519PublicKey) -> bool:
    """Whether the signature is this key's, and of this hash."""
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(bytes.fromhex(manifest.signature), bytes.fromhex(manifest.hash))
    except (InvalidSignature, ValueError):
        return False
    return True


def signing_key(path: str) -> Ed25519PrivateKey:
    """From a PEM file without a password. Raises StreamError where it is none."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(Path(path).read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise _unfit("AURASTREAM_ARCHIVE_SIGNING_KEY", path, str(error)) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _unfit("AURASTREAM_ARCHIVE_SIGNING_KEY", path, "it is a key of another kind")
    return key


def verify_key(path: str) -> Ed25519PublicKey:
    """From a PEM file. Raises StreamError where it is none."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        raise _unfit("AURASTREAM_ARCHIVE_VERIFY_KEY", path, str(error)) from error
    if not isinstance(key, Ed25519PublicKey):
        raise _unfit("AURASTREAM_ARCHIVE_VERIFY_KEY", path, "it is a key of another kind")
    return key


def _unfit(setting: str, path: str, reason: str) -> StreamError:
    return StreamError(
        f"{setting}={path} is no ed25519 key in PEM ({reason}). "
        "Make one with `openssl genpkey -algorithm ed25519`."
    )
