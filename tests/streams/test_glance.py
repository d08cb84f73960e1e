"""A glance at an undecoded entry: it must name the subject and the time that the whole decoding would."""

from __future__ import annotations

from datetime import UTC, datetime
from zlib import crc32

import pytest

from aurastream.streams import Codec, entry_json, occurred_at_of, subject_of
from tests.facts import NOON, observation


def test_a_glance_sees_what_decoding_sees() -> None:
    """Who skips entries by a glance would otherwise skip others than the fold does."""
    raw = Codec().encode(observation(3))
    fields = [b"event", raw, b"crc32", b"%d" % crc32(raw)]

    assert (subject_of(fields), occurred_at_of(fields)) == ("clip-1", NOON)


def test_of_a_doubled_field_the_one_counts_that_decoding_takes() -> None:
    """Anybody may XADD: two values under one name must not be two events to two readers."""
    raw, other = Codec().encode(observation(3)), Codec().encode(observation(3, clip="other"))
    fields = [b"event", other, b"event", raw, b"crc32", b"%d" % crc32(raw)]

    assert entry_json("here", fields) == raw
    assert subject_of(fields) == "clip-1"


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [b"event"],
        [b"else", b"1"],
        [b"event", b"{"],
        [b"event", b'{"subject": 7, "occurred_at": "noon"}'],
        [b"event", b'{"subject": "\xff"}'],
        [b"event", b"[" * 100_000],
    ],
)
def test_what_cannot_be_read_is_nothing(fields: list[bytes]) -> None:
    """Damage is listed by who decodes; a glance only passes it over."""
    assert (subject_of(fields), occurred_at_of(fields)) == (None, None)


def test_a_time_without_an_offset_is_none() -> None:
    """It would compare with no other time, and no event may have one."""
    assert occurred_at_of([b"event", b'{"occurred_at": "2026-01-01T00:00:00"}']) is None
    instant = occurred_at_of([b"event", b'{"occurred_at": "2026-01-01T00:00:00Z"}'])
    assert instant == datetime(2026, 1, 1, tzinfo=UTC)
