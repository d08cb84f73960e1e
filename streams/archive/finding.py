"""
What a verification finds: something that is not as it was written, and where.
"""

from __future__ import annotations

import msgspec

from aurastream.streams.archive.manifest import Manifest


class Finding(msgspec.Struct, frozen=True):
    """Something that is not as it was written. position, until: of the first and the last entry it may be;
    equal where it is certain.

    segment: 0 for the live log.
    """

    stream: str
    partition: int
    position: str
    until: str
    segment: int
    problem: str


def finding_in(manifest: Manifest, problem: str, position: str = "", until: str = "") -> Finding:
    """Of a segment; of all its entries where no position is given."""
    position, until = (position, until or position) if position else (manifest.first, manifest.last)
    return Finding(manifest.stream, manifest.partition, position, until, manifest.number, problem)
