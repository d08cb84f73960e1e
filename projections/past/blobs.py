"""
What a checkpoint's blob holds, and by which code it was made.

    tables and cursor -> msgpack -> zlib -> magic, SHA-256 and the packed content          and back, verified
"""

from __future__ import annotations

import hashlib
import sys
import zlib
from pathlib import Path

import msgspec

from aurastream.projections.engine import AnyProjection, Tables, by_todays_rules, fold, intake, memory
from aurastream.projections.tables import table, values
from aurastream.streams import Cursor

FOLD = {module.__name__ for module in (fold, intake, memory, table, values)}
_MAGIC = b"aura checkpoint 1\n"
_LEVEL = 6


class CheckpointContent(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One partition's view at the cursor. segment: hash of the archive's segment that holds its position."""

    stream: str
    partition: int
    made_by: str
    segment: str
    latest_us: int
    cursor: Cursor
    tables: Tables
    dead: dict[str, str]


_decode = msgspec.msgpack.Decoder(CheckpointContent).decode
_encode = msgspec.msgpack.Encoder().encode


def packed(content: CheckpointContent) -> bytes:
    """The blob."""
    body = zlib.compress(_encode(content), _LEVEL)
    return _MAGIC + hashlib.sha256(body).digest() + body


def unpacked(blob: bytes | None) -> CheckpointContent:
    """The content. Raises ValueError, zlib.error and MsgspecError where it is not to be had."""
    if blob is None:
        raise ValueError("it is gone")
    start = len(_MAGIC) + hashlib.sha256().digest_size
    body = blob[start:]
    if blob[: len(_MAGIC)] != _MAGIC or hashlib.sha256(body).digest() != blob[len(_MAGIC) : start]:
        raise ValueError("its content and its hash disagree: it was damaged or changed")
    return _decode(zlib.decompress(body))


def made_by(projection: AnyProjection) -> str:
    """16 hexadecimal digits of the fingerprint, the rules of intake and the source of all that folds it; ""
    where that is no file.

    That is its module, those of its state and of what its tables name, the kinds of tables, and the fold. A
    fold's helpers in other modules are not looked at: raise ``version`` when those change.
    """
    digest = hashlib.sha256(by_todays_rules(projection.fingerprint).encode())
    for name in sorted(_modules_of(projection) | FOLD):
        path = getattr(sys.modules.get(name), "__file__", None)
        if not path:
            return ""
        try:
            digest.update(Path(path).read_bytes())
        except OSError:
            return ""
    return digest.hexdigest()[:16]


def _modules_of(projection: AnyProjection) -> set[str]:
    """Where its code is, as far as the declarations name it; the standard library's is Python's own."""
    parts: list[object] = [type(projection), projection.state]
    for declared in projection.declared():
        parts += [type(declared), *(getattr(declared, field) for field in declared.__struct_fields__)]
    names = {name for part in parts if isinstance(name := getattr(part, "__module__", None), str)}
    return {name for name in names if name.partition(".")[0] not in sys.stdlib_module_names}
