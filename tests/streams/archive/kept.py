"""What the tests of the archive share: a stream with an archive, entries of every kind, and the trimmer's
contract.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any
from zlib import crc32

from aurastream.streams import OPERATIONS, Codec, History, Server, Settings, open_stream
from aurastream.streams.archive import open_archive
from aurastream.streams.archive.archiver import Archiver
from aurastream.streams.archive.manifest import Manifest
from aurastream.streams.archive.reading import StreamArchive
from aurastream.streams.archive.segment import identify
from aurastream.streams.entries import RawEntry
from aurastream.streams.index import field_of
from tests.facts import observation, raw_append


class Kept:
    """A stream of one partition, its archive in a directory, and the audit trail."""

    def __init__(self, server: Server, place: Path | str, **settings: Any) -> None:
        self.server = server
        self.settings = Settings(partitions=1, archive=str(place), **settings)
        self.stream = open_stream(server, "clips-test", create=True, settings=self.settings)
        self.operations = open_stream(server, OPERATIONS, create=True, settings=self.settings)
        self.keys = self.stream.keys[0]

    def archive(self) -> StreamArchive:
        """Opened anew: nothing remembered."""
        opened = open_archive(self.settings, self.stream)
        assert opened is not None
        return opened

    def close_segments(self, on_step: Any = lambda step: None, **options: Any) -> list[Manifest]:
        return list(Archiver(self.archive(), self.operations, on_step).run(0, **options))

    def log(self) -> list[RawEntry]:
        return [(position, fields) for position, fields in self.stream.read_raw(0, count=10**6)]

    def archived(self, **options: Any) -> list[RawEntry]:
        return [entry for span in self.archive().spans(0, **options) for entry in span.raw]

    def history(self) -> History:
        return History(self.stream, self.archive())

    def trim(self, until: str) -> int:
        """As trim.lua does: entries and their ids rows, and what it counts, at once."""
        gone = self.stream.read_raw(0, "0-0", until, 10**6)
        if not gone:
            return 0
        with self.server.client.pipeline(transaction=True) as pipeline:
            if until == self.log()[-1][0].decode():
                pipeline.execute_command("XTRIM", self.keys.log, "MAXLEN", 0)
            else:
                pipeline.execute_command(
                    "XTRIM", self.keys.log, "MINID", self.stream.read_raw(0, until, count=1)[0][0]
                )
            rows = [
                field_of(envelope.event_id) for envelope in identify(gone).envelopes if envelope is not None
            ]
            if rows:
                pipeline.hdel(self.keys.ids, *rows)
            pipeline.hincrby(self.keys.meta, "trimmed", len(gone))
            pipeline.hset(self.keys.meta, "trimmed_to", until)
            pipeline.execute()
        return len(gone)

    def files_of(self, ending: str) -> list[Path]:
        folder = Path(self.settings.archive) / "clips-test" / "0000"
        return sorted(folder.glob(f"*.{ending}"))

    def told(self) -> list[tuple[str, int]]:
        """The audit trail's LogArchived: stream and number."""
        return [(entry.event.subject, entry.event.number) for entry in self.operations.read(0)]  # type: ignore[attr-defined]

    def files(self) -> list[str]:
        folder = Path(self.settings.archive) / "clips-test" / "0000"
        return sorted(path.name for path in folder.iterdir() if path.is_file()) if folder.exists() else []


def plain(entries: Any) -> list[RawEntry]:
    """As tuples: the server answers lists."""
    return [(position, list(fields)) for position, fields in entries]


def append(kept: Kept, count: int, start: int = 0) -> None:
    kept.stream.append(
        [
            observation(views=n, minute=n, event_id=f"e{n}", clip=f"clip-{n % 7}")
            for n in range(start, start + count)
        ]
    )


def raw_add(kept: Kept, *fields: bytes | str, position: str = "*") -> bytes:
    answer: bytes = kept.server.client.execute_command("XADD", kept.keys.log, position, *fields)
    return answer


def any_entry(kept: Kept, dice: random.Random, number: int) -> None:
    """One entry, of any kind there is: appended, raw, doubled, foreign, damaged, no event at all."""
    event = observation(
        views=number,
        minute=number,
        event_id=f"e{dice.randrange(number + 1)}",
        clip=f"clip-{dice.randrange(9)}",
    )
    json = Codec().encode(event)
    kind = dice.randrange(12)
    if kind < 5:
        kept.stream.append([event])
    elif kind < 7:
        raw_append(kept.server, kept.stream, event)
    elif kind == 7:  # another order of members, and blanks
        loose = (
            json.replace(b'"subject"', b' "subject"')
            if dice.random() < 0.5
            else b'{"subject":"s","type":"t","event_id":"%d","occurred_at":"2026-01-01T00:00:00+09:00"}'
            % number
        )
        raw_add(kept, "event", loose, "crc32", str(crc32(loose)))
    elif kind == 8:  # a checksum that does not hold, or is none
        raw_add(
            kept,
            "event",
            json,
            "crc32",
            dice.choice([str(crc32(json) ^ 1), "", "x", "-1", "0" + str(crc32(json))]),
        )
    elif kind == 9:  # other fields, other orders, more of them
        raw_add(
            kept,
            *dice.choice(
                [
                    ("a", "b"),
                    ("crc32", str(crc32(json)), "event", json),
                    ("event", json, "crc32", str(crc32(json)), "x", "y"),
                    ("event", json),
                    ("event", json, "event", json),
                ]
            ),
        )
    elif kind == 10:  # no text, no JSON, no event
        odd = dice.choice(
            [
                b"",
                b"\xff\xfe",
                b"{",
                b"[]",
                b'{"type":"t"}',
                b"\x00" * 9,
                json.replace(b'"views"', b'"\xff"'),
                json + b" ",
                json[:-1],
            ]
        )
        raw_add(kept, "event", odd, "crc32", str(crc32(odd)))
    else:  # names that append would refuse, escapes in a name
        odd = dice.choice(
            [
                b'{"type":"a\\"b","event_id":"x%d","subject":"s","occurred_at":"2026-01-01T00:00:00Z"}'
                % number,
                b'{"type":"t","event_id":"","subject":"s","occurred_at":"2026-01-01T00:00:00Z"}',
                b'{"type":"t","event_id":"y%d","subject":"s",'
                b'"occurred_at":"2026-01-01T00:00:00Z","source":"\\u0000\\n"}' % number,
                b'{"type":"t","event_id":"z%d","subject":"s",'
                b'"occurred_at":"0001-01-01T00:00:00Z","extra":{"a":[1,2,"\xc3\xa4"]}}' % number,
            ]
        )
        raw_add(kept, "event", odd, "crc32", str(crc32(odd)))
