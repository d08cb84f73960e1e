"""
The ``ids`` index: which entry of the live log is the canonical one of an event ID.

    field  8 bytes: XXH3-64 of the event_id, big-endian       value  10 bytes: milliseconds (6) and sequence
           (4), big-endian
    field  "event_id=" and the event_id, where two live IDs share a digest; value as text where it exceeds 10
           bytes

The digest only finds the row; equality is decided on the entry itself, so a collision costs a look and never
an event.
Decision (2026-11): 10^6 IDs over four partitions cost 43 bytes each on Valkey 9.1 this way (up to 52, and 72
on Redis 7.0, where a hash has just grown); with the position as text 15 more, with the whole ID as field 50
more. Refused: packed buckets of ids (about 23 bytes), as every append would rewrite a kilobyte. append.lua
and commit.lua hold the same format.
"""

from __future__ import annotations

from struct import Struct

from xxhash import xxh3_64_digest

DIGEST_BYTES = 8
_WIDE = Struct(">QI")
_SMALL = {b"%d" % number: number.to_bytes(4, "big") for number in range(4096)}


def field_of(event_id: str) -> bytes:
    """The index field of an event ID: 8 bytes."""
    return xxh3_64_digest(event_id.encode())


def collided_field_of(event_id: str) -> bytes:
    """The field used instead when another live event ID has the same digest; never 8 bytes long."""
    return b"event_id=" + event_id.encode()


def pack_position(position: bytes) -> bytes:
    """``b"1764000000000-3"`` in 10 bytes; one beyond them (a raw XADD with an explicit ID) stays text."""
    milliseconds, _, sequence = position.partition(b"-")
    if len(milliseconds) > 14 or len(sequence) > 9:  # 14 digits fit 6 bytes, 9 digits fit 4
        return position
    return _WIDE.pack(int(milliseconds), int(sequence))[2:]


def pack_positions(positions: list[bytes]) -> list[bytes]:
    """The same of many in log order; entries of one millisecond share its bytes."""
    packed = []
    last, prefix = b"", b""
    for position in positions:
        milliseconds, _, sequence = position.partition(b"-")
        if milliseconds != last:
            last = milliseconds
            prefix = pack_position(milliseconds + b"-0")[:6] if len(milliseconds) <= 14 else b""
        low = _SMALL.get(sequence)
        packed.append(prefix + low if prefix and low is not None else pack_position(position))
    return packed


def unpack_position(packed: bytes) -> bytes:
    """The position as the server writes it."""
    if len(packed) != 10:
        return packed
    milliseconds, sequence = _WIDE.unpack(b"\0\0" + packed)
    return b"%d-%d" % (milliseconds, sequence)
