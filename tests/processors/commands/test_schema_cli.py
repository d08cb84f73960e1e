"""aurastream schema: written for others without a server, compared with a baseline, and tried on every entry
of a log.
"""

from __future__ import annotations

import json
from pathlib import Path
from zlib import crc32

import pytest

from aurastream.streams import BUILT_IN, Server, Settings, Stream, open_stream
from aurastream.streams.schema.json_schema import as_bytes, json_schema
from tests.commands import Done, Home
from tests.facts import observation, raw_append

pytestmark = [pytest.mark.process, pytest.mark.any_server]

GOLDEN = Path(__file__).parents[2] / "streams" / "golden" / "schema.json"

FIRST = '''
from aurastream.streams import Count, Event

class Tip(Event, frozen=True, kw_only=True, tag="tip.received"):
    """Money."""
    euros: Count
'''
# What the next build makes of it: within the version, or with one more and what leads there.
CENTS = FIRST.replace("euros: Count", "cents: Count\n    giver: str = ''")
WIDER = FIRST.replace("euros: Count", "euros: int\n    giver: str = ''")
RAISED = CENTS.replace('"""Money."""', '"""Money."""\n    schema_version = 2')
UPCAST = f"""{RAISED}

def to_cents(old):
    return {{**{{k: v for k, v in old.items() if k != "euros"}}, "cents": old["euros"] * 100}}

UPCASTERS = {{("tip.received", 1): to_cents}}
"""
TIP = (
    '{"type":"tip.received","event_id":"t%d","subject":"a","occurred_at":"2026-04-15T12:00:00Z","euros":%d}\n'
)


class Build:
    """A home whose package of a stranger changes from build to build."""

    def __init__(self, home: Home) -> None:
        self.home, self.number = home, 0

    def install(self, source: str) -> Build:
        self.number += 1
        (self.home.directory / f"tips{self.number}.py").write_text(source)
        return self

    def run(self, *arguments: str, stdin: str = "", url: str | None = None) -> Done:
        env = {"AURASTREAM_REDIS_URL": url, "AURASTREAM_PARTITIONS": "1"} if url else {}
        return self.home.run("--app", f"tips{self.number}", *arguments, stdin=stdin, env=env)


@pytest.fixture
def build(home: Home) -> Build:
    return Build(home).install(FIRST)


def test_export_needs_no_server_and_repeats_its_bytes(home: Home) -> None:
    """It runs where types are built, and its file is committed."""
    first, second = (
        home.run("schema", "export"),
        home.run("schema", "export", "--output", str(home.directory / "s.json")),
    )
    described = home.run("schema", "export", "--format", "asyncapi").json()

    assert first.code == second.code == 0
    assert first.out == as_bytes(json_schema(BUILT_IN)).decode() == (home.directory / "s.json").read_text()
    assert (described["asyncapi"], list(described["channels"])) == ("3.0.0", ["stream"])
    assert not home.path.exists(), "no embedded server was started"


def test_asyncapi_names_the_registered_streams_when_asked(home: Home, url: str, stream: Stream) -> None:
    """A document for others must name what there is, not what could be."""
    asked = home.run(
        "schema", "export", "--format", "asyncapi", "--streams", env={"AURASTREAM_REDIS_URL": url}
    ).json()

    assert {name: channel["address"] for name, channel in asked["channels"].items()} == {
        "clips-test": "clips-test"
    }
    assert home.run("schema", "export", "--streams").code == 2


def test_the_committed_baseline_passes(home: Home) -> None:
    """Our own types must still read what was ever written by them."""
    done = home.run("schema", "check", str(GOLDEN))
    assert (done.code, done.err) == (0, ""), done
    assert not home.path.exists()


def test_check_says_of_each_breaking_change_what_it_breaks(build: Build) -> None:
    """The one moment at which a breaking change is cheap is before it is deployed."""
    assert build.run("schema", "export", "--output", "before.json").code == 0
    assert build.install(WIDER).run("schema", "check", "before.json").code == 0

    done = build.install(CENTS).run("schema", "check", "before.json")
    told = build.run("schema", "check", "before.json", "--json")

    assert done.code == told.code == 1
    assert "tip.received, field euros: it is gone" in done.out
    assert "tip.received, field cents: it is new and has no default" in done.out
    assert "2 breaking changes since before.json" in done.out
    content = json.loads(told.out)
    assert (content["compatible"], content["log"]) == (False, None)
    assert [change["kind"] for change in content["breaking"]] == ["field_removed", "required_added"]
    assert [(change["kind"], change["field"]) for change in content["other"]] == [("field_added", "giver")]


def test_upcasters_make_a_raised_version_compatible_and_without_them_it_is_not(build: Build) -> None:
    """A version alone reads nothing."""
    build.run("schema", "export", "--output", "before.json")
    assert (
        "version 2 without an upcaster from 1"
        in build.install(RAISED).run("schema", "check", "before.json").out
    )
    assert build.install(UPCAST).run("schema", "check", "before.json").code == 0


@pytest.mark.parametrize("content", ["", "{}", "[]"])
def test_a_file_that_is_no_baseline_is_bad_input(home: Home, content: str) -> None:
    """A wrong file must not pass as a type that never changed."""
    (home.directory / "b.json").write_text(content)
    done = home.run("schema", "check", "b.json")
    assert (done.code, done.out) == (2, "")
    assert "schema export" in done.err
    assert home.run("schema", "check", "absent.json").code == 2
    assert home.run("schema", "check", str(GOLDEN), "--stream", "clips").code == 2


def test_every_entry_of_the_log_is_tried_and_those_refused_are_named(
    build: Build, url: str, server: Server
) -> None:
    """The schemas cannot know what an upcaster does with a real entry; the log can."""
    build.run("append", "--stream", "tips", stdin="".join(TIP % (n, n) for n in range(300)), url=url)

    assert build.run("schema", "check", "--json", url=url).json()["log"]["decoded"] == {
        "tip.received": {"1": 300}
    }
    assert build.install(UPCAST).run("schema", "check", "--log", "--json", url=url).json()["log"][
        "decoded"
    ] == {"tip.received": {"1": 300}}
    done = build.install(UPCAST.replace("* 100", "- 280")).run("schema", "check", "--json", url=url)

    log = json.loads(done.out)["log"]
    assert (done.code, log["entries"], log["refused"], log["decoded"]) == (
        1,
        300,
        280,
        {"tip.received": {"1": 20}},
    )
    assert len(log["refused_named"]) == 20, "the list is bounded, the count is not"
    first = server.client.xrange("aura:{tips.0}:log", count=1)[0][0].decode()
    assert log["refused_named"][0]["place"] == f"tips/0/{first}"
    assert "cannot be upcast from version 1" in log["refused_named"][0]["reason"]
    assert "260 more" in build.run("schema", "check", url=url).out

    broken = build.install(UPCAST.replace('old["euros"] * 100', 'old["euros"].cents')).run(
        "schema", "check", "--log", "--json", url=url
    )
    assert (broken.code, "Traceback" in broken.err) == (1, False)
    reason = json.loads(broken.out)["log"]["refused_named"][0]["reason"]
    assert f"event 't0' at tips/0/{first}" in reason
    assert "(AttributeError: 'int' object has no attribute 'cents')" in reason


def test_what_is_damaged_or_of_a_type_that_is_not_installed_is_counted_apart(
    home: Home, url: str, server: Server, stream: Stream
) -> None:
    """Neither is a change of schema: it fails nothing here, and is not passed over."""
    stream.append([observation(views=n, event_id=f"e{n}") for n in range(5)])
    log = stream.keys[0].log
    server.client.xadd(log, {"event": b"{}", "crc32": 7})
    server.client.xadd(log, {"hand": "made"})
    raw_append(server, stream, observation(views=9, event_id="raw"))
    others = open_stream(server, "tips", create=True, settings=Settings(partitions=1))
    strange = (TIP % (1, 1)).strip().encode()
    server.client.xadd(others.keys[0].log, {"event": strange, "crc32": crc32(strange)})

    done = home.run("schema", "check", "--json", env={"AURASTREAM_REDIS_URL": url})

    log_of = done.json()["log"]
    assert (log_of["entries"], log_of["damaged"], log_of["refused"], log_of["unknown"]) == (
        9,
        2,
        0,
        {"tip.received": 1},
    )
    assert log_of["decoded"] == {"clip.views_observed": {"1": 6}}
    assert [
        "checksum" in item["reason"] or "fields" in item["reason"] for item in log_of["damaged_named"]
    ] == [True, True]
    assert (
        home.run("schema", "check", "--stream", "tips", "--json", env={"AURASTREAM_REDIS_URL": url}).json()[
            "log"
        ]["entries"]
        == 1
    )


def test_a_newer_version_in_the_log_is_refused_with_both_versions(
    build: Build, url: str, server: Server
) -> None:
    """Before a build is rolled back, this says what it could not read."""
    newer = TIP.replace('"euros":%d', '"cents":%d,"version":2')
    build.install(UPCAST).run("append", "--stream", "tips", stdin=newer % (1, 5), url=url)

    done = build.install(FIRST).run("schema", "check", url=url)

    assert done.code == 1, done
    assert "tip.received of version 2; here is version 1" in done.out
