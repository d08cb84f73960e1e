"""
Bad input, through the command line: a sentence that says what, where and what to do; nothing half written;
the next one unaffected.

Also the parsers alone, under anything: they never raise, and every data row comes out once.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import os
import re
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aurastream.processors.importing.formats import FileRow, Format, Reject, find_formats
from aurastream.processors.importing.formats.reading import LINE_MAX
from aurastream.streams import EVENT_BYTES_MAX, Server, to_cloudevent
from aurastream.streams.events import COUNT_MAX
from tests.commands import Done
from tests.facts import dump, observation
from tests.processors.importing.imports import CHZZK, YOUTUBE, Shell, assert_answers, parsed, slice_answers
from tests.processors.importing.imports import SLICE_FILE as SLICE

pytestmark = [pytest.mark.process, pytest.mark.any_server]

GOOD = b"2026-04-15T00:00:00Z,1,5,talk\n"


@pytest.fixture
def shell(nursery: Any, server: Server, url: str, tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(nursery, url, tmp_path)
    yield shell
    shell.close()


def ids_in(server: Server, stream: str) -> list[str]:
    """The event IDs of a stream's logs, sorted."""
    entries = [
        fields
        for partition in range(4)
        for _, fields in server.client.xrange(f"aura:{{{stream}.{partition}}}:log")
    ]
    return sorted(json.loads(fields[b"event"])["event_id"] for fields in entries)


def is_a_sentence(text: str) -> bool:
    """One line a terminal can show, that ends."""
    return (
        text.startswith("aurastream: ")
        and text.endswith(".\n")
        and text.count("\n") == 1
        and text[:-1].isprintable()
    )


def event(**changes: Any) -> bytes:
    """An event on stdin; a change to None leaves the field out."""
    whole = {
        "type": "clip.views_observed",
        "event_id": "bad",
        "subject": "c",
        "occurred_at": "2026-04-15T00:00:00Z",
        "views": 1,
    }
    return json.dumps(
        {name: value for name, value in {**whole, **changes}.items() if value is not None}
    ).encode()


def raw(views: str) -> bytes:
    """The same with a number spelled so."""
    return event().replace(b'"views": 1', f'"views": {views}'.encode())


# aurastream append.

LINES: dict[str, tuple[bytes, str]] = {
    "not JSON": (b"views: 5", "it is no JSON"),
    "half a line": (event()[:60], "it is no JSON"),
    "an array": (b"[1, 2]", "it is no JSON object; write {..} on every line"),
    "a number": (b"5", "it is no JSON object"),
    "null": (b"null", "it is no JSON object"),
    "two on a line": (event() + event(), "it is no JSON"),
    "empty object": (b"{}", "Object missing required field"),
    "oversized": (
        event(title="x" * EVENT_BYTES_MAX),
        f"more than {EVENT_BYTES_MAX} bytes; send what is large by reference",
    ),
    "very oversized": (event(title="x" * 5_000_000), f"more than {EVENT_BYTES_MAX} bytes"),
    "blanks, then an event": (b" " * 600_000 + event(), f"more than {EVENT_BYTES_MAX} bytes"),
    "text too long": (event(title="x" * 1_001), "length <= 1000"),
    "deeply nested": (b'{"a":' * 40_000 + b"1" + b"}" * 40_000, "it is no JSON"),
    "deeply nested array": (b"[" * 100_000, "it is no JSON"),
    "deeply nested field": (raw("[" * 900 + "]" * 900), "Expected `int`, got `array`"),
    "NaN": (raw("NaN"), "it is no JSON"),
    "Infinity": (raw("-Infinity"), "it is no JSON"),
    "1e400": (raw("1e400"), "Number out of range"),
    "a fraction": (raw("1.5"), "Expected `int`, got `float`"),
    "2^53": (raw(str(2**53)), "<= 9007199254740991"),
    "2^63": (raw(str(2**63)), "views"),
    "2^64": (raw(str(2**64)), "views"),
    "100,000 digits": (raw("9" * 100_000), "out of range"),
    "negative": (raw("-1"), ">= 0"),
    "a number as text": (raw('"5"'), "Expected `int`, got `str`"),
    "a boolean": (raw("true"), "Expected `int`, got `bool`"),
    "subject of a wrong type": (event(subject=7), "Expected `str`, got `int`"),
    "time of a wrong type": (event(occurred_at=1_764_000_000), "occurred_at"),
    "time without an offset": (event(occurred_at="2026-04-15T00:00:00"), "timezone"),
    "no such day": (event(occurred_at="2026-02-30T00:00:00Z"), "occurred_at"),
    "far in the future": (event(occurred_at="2999-01-01T00:00:00Z"), "more than 24 h ahead"),
    "missing field": (event(views=None), "missing required field `views`"),
    "missing subject": (event(subject=None), "missing required field `subject`"),
    "unknown field": (event(likes=5), "unknown field `likes`"),
    "unknown type": (
        event(type="clip.exploded"),
        "type 'clip.exploded' is not installed (clip.views_observed",
    ),
    "no type": (event(type=None), "type"),
    "newer version": (event(version=99), "version 99: this build knows up to version 1"),
    "bad UTF-8": (event().replace(b'"c"', b'"\xff"'), "it is no JSON"),
    "lone surrogate": (event(title="\ud800"), "it is no JSON"),
    "hash tag in the subject": (
        event(subject="{b}.0"),
        "subject '{b}.0' is not 1 to 128 of A-Z a-z 0-9 _ . : -",
    ),
    "glob in the subject": (event(subject="a*"), "subject 'a*' is not"),
    "blank in the subject": (event(subject="a b"), "subject 'a b' is not"),
    "newline in the subject": (event(subject="a\nb"), r"subject 'a\nb' is not"),
    "NUL in the subject": (event(subject="a\0b"), r"subject 'a\x00b' is not"),
    "escape in the subject": (event(subject="\x1b[31m"), r"subject '\x1b[31m' is not"),
    "empty subject": (event(subject=""), "subject '' is not"),
    "long subject": (event(subject="x" * 129), "is not 1 to 128"),
    "hash tag in the event ID": (event(event_id="{x}"), "event_id '{x}' is not"),
    "long event ID": (event(event_id="x" * 10_000), "is not 1 to 128"),
}


def test_a_bad_line_is_named_and_the_lines_around_it_arrive(shell: Shell, server: Server) -> None:
    """All in one go: each between two good ones, on both sides of the 500 that go to the server together."""
    good = iter(range(10_000))
    lines = [event(event_id=f"good-{next(good)}") for _ in range(470)]
    places: dict[int, str] = {}
    for name, (line, _) in LINES.items():
        lines.append(line)
        places[len(lines)] = name
        lines.append(event(event_id=f"good-{next(good)}"))

    done = shell.run("append", "--stream", "mixed", "--json", stdin=b"\n".join([b"", *lines, b""]))

    sentences = dict(re.findall(r"^aurastream: line (\d+): (.*)$", done.err, re.MULTILINE))
    assert done.code == 2
    assert json.loads(done.out) == {
        "stream": "mixed",
        "appended": 470 + len(LINES),
        "duplicates": 0,
        "refused": len(LINES),
    }
    assert {places.get(int(number) - 1) for number in sentences} == set(
        LINES
    )  # the first line of all is blank
    wrong = {
        places[int(number) - 1]: said
        for number, said in sentences.items()
        if LINES[places[int(number) - 1]][1] not in said
    }
    assert wrong == {}
    assert all(is_a_sentence(line + "\n") and len(line) < 1_000 for line in done.err.splitlines())
    assert ids_in(server, "mixed") == sorted(f"good-{n}" for n in range(470 + len(LINES)))


def test_of_bad_lines_alone_nothing_is_written(shell: Shell, server: Server) -> None:
    """A producer that sends nonsense must not make streams or counts."""
    done = shell.run("append", "--stream", "none", stdin=b"\n".join(line for line, _ in LINES.values()))

    assert done.code == 2
    assert done.out == f"none: 0 appended, 0 already there, {len(LINES)} refused\n"
    assert set(dump(server)) == {b"aura:streams"}


def test_good_lines_are_a_yes(shell: Shell, server: Server) -> None:
    """The exit code is what scripts look at."""
    lines = [
        event(event_id="e1"),
        event(event_id="e2", views=COUNT_MAX, title="\u202e\x1b[31m {b}*", category="저스트"),
        event(event_id="e1"),
    ]

    done = shell.run("append", "--json", stdin=b"\r\n".join(lines))

    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out) == {"stream": "events", "appended": 2, "duplicates": 1, "refused": 0}
    assert ids_in(server, "events") == ["e1", "e2"]


def test_nothing_on_stdin_is_no_error(shell: Shell) -> None:
    """An empty hour of a nightly job is no failure."""
    assert shell.run("append", "--json", stdin=b"\n \n").json() == {
        "stream": "events",
        "appended": 0,
        "duplicates": 0,
        "refused": 0,
    }


def test_hostile_texts_reach_no_terminal(shell: Shell) -> None:
    """Titles are any text; what is shown of them cannot move a cursor or turn the line around."""
    line = event(
        event_id="e1",
        subject="c",
        title="\x1b[2Jgone\u202e\x07",
        views=5_000_000,
        created_at="2026-04-14T23:00:00Z",
    )
    shell.run("append", stdin=line)
    shell.run("run", "--until-idle")

    for command in (("view", "clips"), ("audit", "c"), ("view", "clips", "c")):
        done = shell.run(*command)
        assert done.code == 0
        assert "gone" in done.out or command[0] == "audit"  # whose column is narrow
        assert not set("\x1b\x07\u202e") & set(done.out)


@pytest.mark.parametrize(
    "changes",
    [
        {"occurred_at": "0001-01-01T00:00:00+23:59", "subject": "old"},
        {"created_at": "9999-12-31T23:59:59Z", "views": 50_900, "occurred_at": "2026-04-15T00:01:00Z"},
    ],
    ids=["before the calendar in UTC", "published at its end"],
)
def test_dates_at_the_ends_of_the_calendar_stop_no_view(shell: Shell, changes: dict[str, Any]) -> None:
    """Refused at append, or folded: in no case does one event stop the consumer for all the others."""
    lines = [
        event(event_id="e1", views=50_000),
        event(event_id="e2", **changes),
        event(event_id="e3", subject="d", views=7),
    ]
    shell.run("append", stdin=b"\n".join(lines))

    assert shell.run("run", "--until-idle").code == 0
    assert shell.run("view", "clips", "d", "--json").json()["state"]["views"] == 7
    assert shell.run("check").code == 0


# CloudEvents.


def cloud(**changes: Any) -> bytes:
    """A CloudEvent on stdin."""
    whole = {**to_cloudevent(observation(event_id="bad")), **changes}
    return json.dumps({name: value for name, value in whole.items() if value is not None}).encode()


CLOUD_LINES: dict[str, tuple[bytes, str]] = {
    "another version": (cloud(specversion="0.3"), "specversion '0.3' is not '1.0'; send CloudEvents 1.0"),
    "version of a wrong type": (cloud(specversion=1.0), "specversion 1.0 is not '1.0'"),
    "no ID": (cloud(id=None), "the CloudEvent has no id"),
    "no subject, no time": (cloud(subject=None, time=None), "the CloudEvent has no subject, time"),
    "a strange attribute": (cloud(likes=5), "the attributes likes have no place in an event"),
    "binary data": (cloud(data=None, data_base64="AA=="), "data_base64"),
    "data that is no object": (cloud(data=[1]), "data is no JSON object of the event's own fields"),
    "data that is the envelope": (
        cloud(data={"views": 1, "event_id": "other"}),
        "data is no JSON object of the event's own fields",
    ),
    "another content type": (cloud(datacontenttype="text/xml"), "'text/xml' is not application/json"),
    "unknown field in data": (cloud(data={"views": 1, "likes": 2}), "unknown field `likes`"),
    "data too large": (cloud(data={"views": 2**64}), "views"),
    "deeply nested data": (
        cloud(data=0).replace(b'"data": 0', b'"data": {"views": ' + b"[" * 900 + b"]" * 900 + b"}"),
        "refused",
    ),
    "unknown type": (cloud(type="clip.exploded"), "type 'clip.exploded' is not installed"),
    "type of a wrong type": (cloud(type=["clip.views_observed"]), "type"),
    "ID of a wrong type": (cloud(id=5), "refused"),
    "hash tag in the subject": (cloud(subject="{b}.0"), "subject '{b}.0' is not"),
}


def test_cloudevents_among_events(shell: Shell, server: Server) -> None:
    """Each line says what it is; of both kinds one stream may hold any."""
    lines = [cloud(id="cloud-1", source="/radar/1", correlationid="story"), event(event_id="plain-1")]
    lines += [line for line, _ in CLOUD_LINES.values()]
    lines += [cloud(id="cloud-2"), cloud(id="plain-1", subject="c")]

    done = shell.run("append", "--stream", "cloud", "--json", stdin=b"\n".join(lines))

    sentences = dict(re.findall(r"^aurastream: line (\d+): (.*)$", done.err, re.MULTILINE))
    wrong = {
        name: sentences.get(str(n))
        for n, (name, (_, said)) in enumerate(CLOUD_LINES.items(), 3)
        if said not in sentences.get(str(n), "")
    }
    assert wrong == {}
    assert all(is_a_sentence(line + "\n") for line in done.err.splitlines())
    assert done.code == 2
    assert json.loads(done.out) == {
        "stream": "cloud",
        "appended": 3,
        "duplicates": 1,
        "refused": len(CLOUD_LINES),
    }
    assert ids_in(server, "cloud") == ["cloud-1", "cloud-2", "plain-1"]


# aurastream import: rows.

ROWS: dict[str, tuple[bytes, str]] = {
    "bad UTF-8": (b"2026-04-15T00:00:00Z,1,5,\xff\xfe\n", "row: it is not UTF-8"),
    "NUL": (b"2026-04-15T00:00:00Z,1,5,a\0b\n", "row: it holds a NUL"),
    "a line of more than 1 MiB": (
        b"2026-04-15T00:00:00Z,1,5," + b"x" * (LINE_MAX + 5) + b"\n",
        "row: a line is longer than 1048576 bytes",
    ),
    "a line of exactly 1 MiB": (
        b"2026-04-15T00:00:00Z,1,5," + b"x" * (LINE_MAX - 26) + b"\n",
        "row: field larger than field limit",
    ),
    "a line of 9 MiB with quotes": (
        b'2026-04-15T00:00:00Z,1,5,"' + b'x"",\n"'[:3] * 3_000_000 + b"\n",
        "row: a line is longer than",
    ),
    "a cell of 200 KB": (
        b"2026-04-15T00:00:00Z,1,5," + b"x" * 200_000 + b"\n",
        "row: field larger than field limit",
    ),
    "carriage return in a cell": (
        b"2026-04-15T00:00:00Z,1\r,5,a\n",
        "row: new-line character seen in unquoted field",
    ),
    "a quote never closed": (b'2026-04-15T00:00:00Z,1,5,"talk\n', "row: "),
    "a quote in the first cell": (b'"2026-04-15T00:00:00Z,1,5,talk\n', "row: "),
    "formula": (b"2026-04-15T00:00:00Z,=1+1,5,a\n", "video_no: '=1+1' is not decimal"),
    "formula for a count": (b"2026-04-15T00:00:00Z,1,+5,a\n", "view_count: '+5' is no count"),
    "too few cells": (b"2026-04-15T00:00:00Z,1,5\n", "row: 3 cells, the header has 4"),
    "too many cells": (b"2026-04-15T00:00:00Z,1,5,a,b\n", "row: 5 cells, the header has 4"),
    "blanks": (b"   \n", "row: 1 cells, the header has 4"),
    "NaN": (b"2026-04-15T00:00:00Z,1,NaN,a\n", "view_count: 'NaN' is no count below 2^53"),
    "2^53": (b"2026-04-15T00:00:00Z,1,9007199254740992,a\n", "view_count: '9007199254740992' is no count"),
    "2^64": (b"2026-04-15T00:00:00Z,1,18446744073709551616,a\n", "view_count"),
    "100,000 digits": (b"2026-04-15T00:00:00Z,1," + b"9" * 100_000 + b",a\n", "view_count: '9999999999"),
    "a fraction": (b"2026-04-15T00:00:00Z,1,5.0,a\n", "view_count: '5.0' is no count"),
    "digits of other scripts": ("2026-04-15T00:00:00Z,1,\u0665,a\n".encode(), "view_count"),
    "superscript digits": ("2026-04-15T00:00:00Z,²,5,a\n".encode(), "video_no"),
    "no offset": (
        b"2026-04-15T00:00:00,1,5,a\n",
        "observed_at: '2026-04-15T00:00:00' is no instant with an offset",
    ),
    "no such day": (b"2026-02-30T00:00:00Z,1,5,a\n", "observed_at"),
    "before the calendar": (b"0001-01-01T00:00:00+23:59,1,5,a\n", "observed_at"),
    "the future": (
        b"2999-01-01T00:00:00Z,1,5,a\n",
        "row: observed 2999-01-01T00:00:00+00:00, more than 24 h ahead",
    ),
    "hash tag": (b"2026-04-15T00:00:00Z,{1},5,a\n", "video_no: '{1}' is not decimal"),
    "the header again": (CHZZK.encode(), "observed_at: 'observed_at' is no instant"),
}


def test_a_bad_row_is_named_and_the_rows_around_it_arrive(shell: Shell, server: Server) -> None:
    """Every kind between two good rows; of a stray quote only its own line is lost."""
    rows = [GOOD]
    places = {}
    for name, (row, _) in ROWS.items():
        places[len(rows) + 1] = name
        rows += [row, GOOD]
    (shell.directory / "f.csv").write_bytes(CHZZK.encode() + b"".join(rows))

    done = shell.run("import", "f.csv", "--format", "chzzk", "--json")

    rejects = [
        json.loads(line) for line in (shell.directory / "f.csv.rejects.jsonl").read_text().splitlines()
    ]
    reasons = {places.get(reject["row"]): reject["reason"] for reject in rejects}
    assert {
        name: reason for name, reason in reasons.items() if name is None or ROWS[name][1] not in reason
    } == {}
    assert set(reasons) == set(ROWS)
    assert all(0 < len(reject["text"]) <= 500 and len(reject["reason"]) < 200 for reject in rejects)
    counts = {name: done.json()[name] for name in ("rows", "appended", "rejected", "finished")}
    assert counts == {"rows": len(rows), "appended": len(ROWS) + 1, "rejected": len(ROWS), "finished": True}
    assert ids_in(server, "chzzk") == sorted(f"f.csv:{number}" for number in range(1, len(rows) + 1, 2))


def test_what_looks_odd_and_is_legal_arrives(shell: Shell, server: Server) -> None:
    """BOM, CRLF, quoted newlines, blank lines, no newline at the end, a formula where any text may stand."""
    rows = (
        b'"2026-04-15T00:00:00Z","1","5","two\r\nlines, ""quoted"""\r\n\r\n'
        b'2026-04-15T00:01:00Z,1,6,"=HYPERLINK(""x"")"\r\n2026-04-15T00:02:00Z,1,7,12" vinyl'
    )
    (shell.directory / "f.csv").write_bytes(b"\xef\xbb\xbf" + CHZZK.replace("\n", "\r\n").encode() + rows)

    done = shell.run("import", "f.csv", "--format", "chzzk", "--json").json()

    entries = [
        json.loads(fields[b"event"])
        for n in range(4)
        for _, fields in server.client.xrange(f"aura:{{chzzk.{n}}}:log")
    ]
    assert (done["appended"], done["rejected"]) == (3, 0)
    assert [entry["category"] for entry in entries] == [
        'two\r\nlines, "quoted"',
        '=HYPERLINK("x")',
        '12" vinyl',
    ]


@pytest.mark.parametrize(
    "end",
    [b"2026-04-15T00:00:00Z,1", b"2026-04-15T00:00:0", b'2026-04-15T00:00:00Z,1,5,"ta', b"\xec\xa0"],
    ids=["between cells", "in the first cell", "in quotes", "in a character"],
)
def test_half_a_last_line_is_refused_and_the_rest_arrives(shell: Shell, server: Server, end: bytes) -> None:
    """A pipe that breaks in the middle of a line must not cost the lines before it."""
    (shell.directory / "f.csv").write_bytes(CHZZK.encode() + GOOD * 3 + end)

    done = shell.run("import", "f.csv", "--format", "chzzk", "--json").json()

    assert (done["rows"], done["appended"], done["rejected"]) == (4, 3, 1)
    assert ids_in(server, "imports") == ["chzzk:f.csv:4", f"chzzk:f.csv:finished:{done['file_sha256'][:16]}"]


# aurastream import: files.


def refused(shell: Shell, *arguments: object) -> Done:
    done = shell.run("import", *arguments)
    assert done.code == 2
    assert done.out == ""
    assert is_a_sentence(done.err)
    return done


FILES: dict[str, tuple[bytes, str]] = {
    "empty": (
        b"",
        "f.csv is empty: it has not even a header. Expected the columns observed_at, video_no, view_count, "
        "category",
    ),
    "only a BOM": (b"\xef\xbb\xbf", "missing columns observed_at"),
    "another format": (
        YOUTUBE.encode() + b"x\n",
        "f.csv is no chzzk file: missing columns observed_at, video_no, view_count, category",
    ),
    "another format's remedy": (YOUTUBE.encode(), "Use --format youtube-2017-09"),
    "columns in another order": (
        b"video_no,observed_at,view_count,category\n",
        "Give the file these columns, in this order: observed_at",
    ),
    "no header": (GOOD, "unknown 2026-04-15T00:00:00Z, 1, 5, talk"),
    "binary": (bytes(range(256)) * 40, "f.csv is no chzzk file"),
    "UTF-16": (CHZZK.encode("utf-16"), "f.csv is no chzzk file"),
    "hostile header": (b"\x1b[2J\xff,\xe2\x80\xae\n", "f.csv is no chzzk file"),
    "header of 3 MiB": (b"x" * 3 * 2**20, "f.csv is no chzzk file"),
    "header of an open quote": (b'"' + CHZZK.encode() + GOOD, "in its first line a quote is never closed"),
    "old Macintosh": (
        (CHZZK.encode() + GOOD).replace(b"\n", b"\r"),
        "in its first line new-line character seen",
    ),
    "gzip's first bytes": (b"\x1f\x8b", "the gzip stream is damaged or cut off after data row 0"),
    "damaged gzip": (
        gzip.compress(CHZZK.encode() + GOOD)[:20] + b"\xff" * 40,
        "the gzip stream is damaged or cut off after data row 0",
    ),
    "zip": (b"PK\x03\x04" + b"\0" * 60, "f.csv is no chzzk file"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_not_what_it_is_said_to_be_leaves_nothing(
    shell: Shell, server: Server, name: str
) -> None:
    """A wrong --format is noticed at the header, before anything is in a log that forgets nothing."""
    content, said = FILES[name]
    (shell.directory / "f.csv").write_bytes(content)

    done = refused(shell, "f.csv", "--format", "chzzk")

    assert said in done.err
    assert set(dump(server)) <= {b"aura:streams"}
    assert not list(shell.directory.glob("*.jsonl*"))
    (shell.directory / "next.csv").write_bytes(CHZZK.encode() + GOOD)
    assert shell.run("import", "next.csv", "--format", "chzzk", "--json").json()["appended"] == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("missing.csv", "--format", "chzzk"),
            "missing.csv cannot be read (No such file or directory). Name a file, plain or .gz.",
        ),
        ((".", "--format", "chzzk"), "is no regular file"),
        (("/dev/null", "--format", "chzzk"), "is no regular file"),
        (("f.csv/g.csv", "--format", "chzzk"), "f.csv/g.csv cannot be read (Not a directory)"),
        (("x" * 300, "--format", "chzzk"), "cannot be read (File name too long)"),
        (
            (os.fsdecode(b"\xff\x1b[31m.csv"), "--format", "chzzk"),
            "cannot be read (No such file or directory)",
        ),
        (
            ("f.csv", "--format", "parquet"),
            "'parquet' is not one of 'chzzk', 'youtube-2017-09', 'youtube-2017-11'",
        ),
        (("f.csv",), "--format"),
        (("f.csv", "--format", "chzzk", "--batch", "0"), "0 is not in the range"),
        (("f.csv", "--format", "chzzk", "--stream", "{b}"), "'{b}' is no stream name"),
        (("f.csv", "--format", "chzzk", "--metadata", "missing.csv"), "missing.csv cannot be read"),
        (
            ("f.csv", "--format", "chzzk", "--metadata", "f.csv"),
            "f.csv is no chzzk metadata file: missing columns title, date",
        ),
        (
            ("f.csv", "--format", "chzzk", "--rejects", "nowhere/r"),
            "the rejects file nowhere/r cannot be written (No such file or directory)",
        ),
    ],
)
def test_a_wrong_request_is_a_sentence(
    shell: Shell, server: Server, arguments: tuple[str, ...], said: str
) -> None:
    """Usage errors name the remedy and exit with 2, so that scripts tell them from a no."""
    (shell.directory / "f.csv").write_bytes(CHZZK.encode() + b"x\n" + GOOD)

    done = shell.run("import", *arguments)

    assert done.code == 2
    assert said in " ".join(done.err.split())
    assert done.err.count("\n") <= 4
    assert set(dump(server)) <= {b"aura:streams"}


def test_json_says_the_same_as_an_object(shell: Shell) -> None:
    """Names of files are any bytes."""
    name = os.fsdecode(b"\xff\x1b[31m.csv")
    (shell.directory / name).write_bytes(b"\xff\xfe\n")

    done = shell.run("import", name, "--format", "chzzk", "--json")

    told = json.loads(done.err)["error"]
    assert (done.code, done.out, told["type"]) == (2, "", "FormatError")
    assert told["message"].isprintable()


def test_a_file_of_any_name_is_imported_with_its_rejects(shell: Shell, server: Server) -> None:
    """File names are strangers' texts, and event IDs are made of them."""
    name = os.fsdecode(b"\xff{a} b.csv")
    (shell.directory / name).write_bytes(CHZZK.encode() + GOOD + b"x\n")

    done = shell.run("import", name, "--format", "chzzk", "--json").json()

    assert done["file"] == ":FF:7Ba:7D:20b.csv"
    assert (shell.directory / f"{name}.rejects.jsonl").exists()
    assert ids_in(server, "chzzk") == [":FF:7Ba:7D:20b.csv:1"]


def test_of_a_gzip_cut_in_the_middle_the_rows_before_arrive_and_the_whole_file_goes_on(
    shell: Shell, server: Server
) -> None:
    """Downloads break off; fetching again must count no row twice."""
    path = shell.directory / SLICE.name
    path.write_bytes(SLICE.read_bytes()[:60_000])

    cut = refused(shell, SLICE.name, "--format", "chzzk")

    found = re.search(
        r"cut off after data row (\d+) .* fetch the file again and repeat.* (\d+) appended", cut.err
    )
    assert found
    kept = int(found[1])
    assert kept == int(found[2]) > 5_000
    assert ids_in(server, "chzzk") == sorted(f"{SLICE.name}:{number}" for number in range(1, kept + 1))
    assert ids_in(server, "imports") == []

    path.write_bytes(SLICE.read_bytes())
    whole = shell.run("import", SLICE.name, "--format", "chzzk", "--json").json()

    assert (whole["duplicates"], whole["finished"]) == (kept, True)
    assert_answers(shell.report("chzzk", "clips", "imports"), slice_answers())


def test_a_gzip_bomb_is_refused_and_not_unpacked_to_its_end(shell: Shell, server: Server) -> None:
    """One line of 1 GiB of zeros in 1 MiB; refused after 64 MiB."""
    packer = zlib.compressobj(9, wbits=31)
    packed = packer.compress(CHZZK.encode() + GOOD) + packer.flush(zlib.Z_FULL_FLUSH)
    zeros = packer.compress(b"\0" * 2**22) + packer.flush(zlib.Z_FULL_FLUSH)
    (shell.directory / "bomb.csv.gz").write_bytes(packed + zeros * 256)

    done = refused(shell, "bomb.csv.gz", "--format", "chzzk")

    assert (
        "bomb.csv.gz unpacks to more than 200 times its size: refused as a gzip bomb. Unpack it by hand if "
        "it is real. " in done.err
    )
    assert ids_in(server, "chzzk") == ["bomb.csv.gz:1"]


def test_a_changed_file_is_refused_and_leaves_everything_as_it_was(shell: Shell, server: Server) -> None:
    """The same row numbers would mean other facts under the same event IDs."""
    path = shell.directory / "f.csv"
    path.write_bytes(CHZZK.encode() + GOOD)
    assert shell.run("import", "f.csv", "--format", "chzzk").code == 0
    before = dump(server)

    path.write_bytes(CHZZK.encode() + GOOD.replace(b",5,", b",9,"))
    done = refused(shell, "f.csv", "--format", "chzzk")

    assert "f.csv was imported before with other content" in done.err
    assert dump(server) == before


# The parsers alone.

WORDS = [
    "2026-04-15T00:00:00Z",
    "13.09",
    "17.14.11",
    "00000-video",
    "12345",
    "",
    "0",
    "-1",
    "NaN",
    "9007199254740992",
    "2026-01-01",
    "+9",
    "x" * 50,
]
CELLS = st.one_of(
    st.sampled_from(WORDS),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12),
)


@pytest.mark.parametrize("form", find_formats().values(), ids=list(find_formats()))
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_cells_of_any_text_give_a_row_or_the_columns_that_are_wrong(
    form: Format, data: st.DataObject
) -> None:
    """A parser that raises loses the rest of the file."""
    cells = data.draw(st.lists(CELLS, min_size=len(form.columns), max_size=len(form.columns)))

    found = form.parse(3, cells, {})

    if isinstance(found, FileRow):
        assert found.number == 3
        assert 0 <= found.views <= COUNT_MAX
        assert found.observed_at.utcoffset() is not None
    else:
        assert found
        assert set(found) <= set(form.columns)
        assert all(found.values())


@given(
    rows=st.lists(st.tuples(CELLS, CELLS, CELLS, CELLS), max_size=12),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
@settings(max_examples=100, deadline=None)
def test_every_row_a_csv_writer_writes_comes_out_once_and_in_order(
    rows: list[tuple[str, ...]], quoting: int
) -> None:
    """Whatever its cells hold: quotes, commas, newlines of every kind."""
    text = io.StringIO(newline="")
    csv.writer(text, quoting=quoting, lineterminator="\r\n").writerows(rows)  # type: ignore[arg-type]

    found = parsed(CHZZK.encode() + text.getvalue().encode())

    assert [item.number for item in found] == list(range(1, len(rows) + 1))
    for item, (observed_at, video_no, views, category) in zip(found, rows, strict=True):
        if isinstance(item, FileRow):
            assert (item.subject, str(item.views), item.category) == (video_no, str(int(views)), category)
        else:
            assert item.text == ",".join([observed_at, video_no, views, category])[:500]


JUNK = st.one_of(
    st.binary(max_size=40),
    st.lists(
        st.sampled_from(
            [b'"', b",", b"a", b'""', b"\r", b"\0", b"\xff", b" ", b'"2026-04-15T00:00:00Z,1,5,']
        ),
        max_size=9,
    ).map(b"".join),
).map(lambda junk: junk.replace(b"\n", b""))


@given(junk=JUNK, after=st.integers(0, 5))
@example(junk=b'"', after=3)
@example(junk=b'2026-04-15T00:00:00Z,1,5,"', after=3)
@example(junk=b'a","', after=2)
@settings(max_examples=300, deadline=None)
def test_a_damaged_line_costs_no_other(junk: bytes, after: int) -> None:
    """Any bytes at all in one line: the good rows around it all come out."""
    found = parsed(CHZZK.encode() + GOOD * 2 + junk + b"\n" + GOOD * after)

    assert [item.number for item in found] == list(range(1, len(found) + 1))
    assert [type(item) for item in found[:2]] == [FileRow, FileRow]
    assert [type(item) for item in found[len(found) - after :]] == [FileRow] * after
    assert len(found) - after - 2 in {0, 1}, "the junk is one row, or none where it is blank"


@given(content=st.lists(JUNK, max_size=12).map(b"\n".join))
@settings(max_examples=200, deadline=None)
def test_any_bytes_after_the_header_end_in_rows_numbered_from_1(content: bytes) -> None:
    """Row numbers are event IDs: an adversary's bytes must not shift those of the rows after them."""
    found = parsed(CHZZK.encode() + content)

    assert [item.number for item in found] == list(range(1, len(found) + 1))
    assert len(found) <= content.count(b"\n") + 1
    assert all(
        item.columns and item.reason and item.text == item.text.encode().decode()
        for item in found
        if isinstance(item, Reject)
    )


def test_two_stray_quotes_in_two_columns_cost_their_own_lines_only() -> None:
    """As one row of three thousand lines they would take the rows between them along."""
    found = parsed(
        CHZZK.encode()
        + GOOD
        + b'"2026-04-15T00:00:00Z,1,5,talk\n'
        + GOOD * 3_000
        + b'2026-04-15T00:00:00Z,1,"5,talk\n'
        + GOOD * 10
    )

    assert [item.number for item in found if isinstance(item, Reject)] == [2, 3_003]
    assert len(found) == 3_013


@pytest.mark.parametrize("between", [0, 1, 3_000])
def test_two_stray_quotes_in_one_column_make_no_row_of_two(between: int) -> None:
    """Legal CSV: one row, with the first line's subject and the second one's views. Nobody saw that fact."""
    header = YOUTUBE.encode()
    first, second = b'00000-video,13.09,"One,c,1,5,1,1,1\n', b'00001-video,13.09,"Two,c,1,900,1,1,1\n'
    good = b'00002-video,13.09,"Three, or four",c,1,7,1,1,1\n'

    found = parsed(
        header + good + first + b"00002-video,13.09,Three,c,1,7,1,1,1\n" * between + second + good,
        "youtube-2017-09",
    )

    assert [item.number for item in found] == list(range(1, between + 5))
    assert [item.views for item in found if isinstance(item, FileRow)] == [7, 7]
    rejects = [item for item in found if isinstance(item, Reject)]
    assert [item.text for item in (rejects[0], rejects[-1])] == [
        first.decode().strip(),
        second.decode().strip(),
    ]
    assert all("some are rows themselves" in item.reason for item in rejects)


def test_a_title_cannot_forge_a_row() -> None:
    """Quoted as it should be, and with a whole row inside: neither becomes a fact."""
    title = '"a title\n00001-video,13.09,t,c,1,999999,1,1,1\nits end"'

    found = parsed(
        (YOUTUBE + f"00000-video,13.09,{title},c,1,5,1,1,1\n" + "00002-video,13.09,t,c,1,7,1,1,1\n").encode(),
        "youtube-2017-09",
    )

    assert [item.subject for item in found if isinstance(item, FileRow)] == ["00002-video"]


@pytest.mark.parametrize("line", [b'a","\n', b'"\n', b'","\n', b'x,"\n'])
def test_a_file_made_of_stray_quotes_is_read_in_linear_time(
    line: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading on after a stray quote must not mean reading the file again for every line of it. Counted, not
    timed.
    """
    from aurastream.processors.importing.formats import reading

    counts = []
    taken = reading._CsvLines.taken

    def counted(lines: Any) -> Iterator[str]:
        for item in taken(lines):
            counts.append(1)
            yield item

    monkeypatch.setattr(reading._CsvLines, "taken", counted)
    monkeypatch.setattr(reading, "LINE_MAX", 2**14)
    lines = math.ceil(3 * 2**14 / len(line))

    found = parsed(CHZZK.encode() + line * lines)

    assert found
    assert len(counts) <= 3 * lines + 2


def test_the_clock_of_a_row_is_utc() -> None:
    """Event time has no zone in the views; a local time would move observations between days."""
    (row,) = parsed(CHZZK.encode() + b"2026-04-15T00:00:00+09:00,1,5,a\n")
    assert isinstance(row, FileRow)
    assert row.observed_at == datetime(2026, 4, 14, 15, tzinfo=UTC)
