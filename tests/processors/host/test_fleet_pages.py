"""What an operator sees of real hosts: lanes nobody runs, lanes that are stuck, events set aside, each within
5 s of the fact, in /fleet, the log and `aurastream status`; and green again by itself. /health stays the
host's own.
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aurastream.streams import VIEWS, Server, Settings, Stream, open_stream
from tests.facts import observation
from tests.processors.host.test_host import PROGRAMS, Host, Start, live, start  # noqa: F401 - fixtures
from tests.servers import ServerProcess, until

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.any_server]

SEEN_S = 5.0  # what is promised

APP = """
from aurastream.projections import Projection
from aurastream.streams import ClipViewsObserved
import msgspec

class Seen(msgspec.Struct, frozen=True):
    times: int

class {name}(Projection[Seen]):
    name = "{lower}"
    events = (ClipViewsObserved,)
    state = Seen

    def apply(self, state, event):
        if event.views == {poison}:
            raise ValueError("no number I know")
        return Seen((state.times if state else 0) + 1)
"""

PARKING = """
from aurastream.processors.effects import Processor
from aurastream.streams import ClipViewsObserved

class Parking(Processor):
    name = "parking"
    events = (ClipViewsObserved,)
    attempts_max = 1

    async def handle(self, event, attempt):
        if event.views == 13:
            raise RuntimeError("the platform says no")
"""


def write_app(folder: Path, name: str, poison: int = -1) -> None:
    source = APP.format(name=name.capitalize(), lower=name, poison=poison)
    (folder / f"{name}_app.py").write_text(source)


def command(*words: str, apps: tuple[str, ...] = ()) -> tuple[str, ...]:
    options = [word for app in apps for word in ("--app", f"{app}_app")]
    return ("aurastream", *options, "run", *words, "--web-port", "PORT")


def append(stream: Stream, first: int, count: int) -> None:
    stream.append(
        [observation(views=n, minute=n, clip=f"clip-{n % 40}") for n in range(first, first + count)]
    )


def fleet(host: Host) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(host.page("/fleet")[1])
    return content


def lag(host: Host, *groups: str) -> int:
    """Of all their lanes; -1 while there are not as many as there are groups."""
    if host.page("/fleet")[0] == 0:
        return -1
    lanes = [lane for lane in fleet(host)["lanes"] if lane["group"] in groups]
    return (
        sum(lane["lag_events"] for lane in lanes) if {lane["group"] for lane in lanes} == set(groups) else -1
    )


def is_live(lane: dict[str, Any], group: str) -> bool:
    return (lane["stream"], lane["group"]) == ("clips-live", group)


def red(host: Host) -> list[str]:
    return [reason["text"] for reason in fleet(host)["reasons"] if reason["colour"] == "red"]


def lines(host: Host, event: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in host.log().splitlines() if f'"event": "{event}"' in line]


def status(url: str, *words: str) -> dict[str, Any]:
    """As somebody sees it who has none of the apps."""
    done = subprocess.run(
        [PROGRAMS / "aurastream", "status", "--json", *words],
        env={"AURASTREAM_REDIS_URL": url},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    content: dict[str, Any] = json.loads(done.stdout)
    content["exit_code"] = done.returncode
    return content


def within(condition: Callable[[], object], what: str, seconds: float = SEEN_S) -> None:
    """Seen by whoever asks again and again; the last answer may come a moment later."""
    until(condition, what, seconds + 1)


@pytest.mark.parametrize("choice", ["projection", "app", "stream"])
def test_hosts_of_unlike_choice_run_all_there_is_together(
    start: Start,  # noqa: F811
    server: Server,
    live: Stream,  # noqa: F811
    url: str,
    tmp_path: Path,
    choice: str,
) -> None:
    """They starved each other for ever, and every page was green."""
    for name in ("one", "two"):
        write_app(tmp_path, name)
    other = open_stream(server, "other", create=True, settings=Settings(partitions=4))
    groups = {"projection": ("clips", "trail"), "app": ("one", "two"), "stream": ("trail",)}[choice]
    words = {
        "projection": (command("--projection", "clips"), command()),
        "app": (command(apps=("one",)), command(apps=("two",))),
        "stream": (command("--stream", "clips-live"), command("--stream", "other")),
    }[choice]
    first, second = (start(*each) for each in words)
    until(lambda: (first.page("/ready")[0], second.page("/ready")[0]) == (200, 200), "both")

    for stream in (live, other):
        append(stream, 0, 200)

    until(lambda: (lag(first, *groups), lag(second, *groups)) == (0, 0), "everything to be read", 15)
    until(lambda: (first.page("/fleet")[0], second.page("/fleet")[0]) == (200, 200), "a green fleet")
    seen = status(url)
    assert set(groups) <= set(seen["streams"]["clips-live"]["groups"])
    assert len(seen["hosts"]) == 2
    other.close()


def test_what_a_killed_host_ran_is_nobodys_within_seconds_and_well_once_it_is_back(
    start: Start,  # noqa: F811
    live: Stream,  # noqa: F811
    url: str,
    tmp_path: Path,
) -> None:
    """The living one has no code for it, and says so; its own health is its own."""
    for name in ("one", "two"):
        write_app(tmp_path, name)
    killed = start(*command(apps=("one",)), lease_ms=3_000)
    living = start(*command(apps=("two",)), lease_ms=3_000)
    append(live, 0, 100)
    until(lambda: lag(living, "one", "two") == 0, "both to have read")

    killed.kill()
    killed_at = time.monotonic()
    append(live, 100, 100)
    within(lambda: any(text.startswith("one of clips-live/0-3: nobody") for text in red(living)), "red")
    took_s = time.monotonic() - killed_at
    within(lambda: lines(living, "lane_unowned"), "a line in the log", 2)

    assert took_s < SEEN_S, took_s
    assert (living.page("/fleet")[0], living.page("/health")[0]) == (503, 200)
    assert (
        'aurastream_lanes_unowned{generation="1",group="one",stream="clips-live"} 4.0'
        in living.page("/metrics")[1]
    )
    seen = status(url, "--exit-code")
    assert (seen["colour"], seen["exit_code"], [host["kind"] for host in seen["hosts"]]) == (
        "red",
        1,
        ["run"],
    )

    back = start(*command(apps=("one",)), lease_ms=3_000)
    until(lambda: "lanes_taken_over" in back.log(), "a line of that the lanes were a dead host's")
    until(lambda: living.page("/fleet")[0] == 200, "green by itself")
    until(lambda: lines(living, "lane_well_again") or lines(back, "lane_well_again"), "the leader to say so")
    assert len([line for line in lines(living, "lane_unowned") if line["level"] == "error"]) == 1, "said once"


def test_a_version_that_nobody_runs_is_red_and_says_what_to_do(
    start: Start,  # noqa: F811
    live: Stream,  # noqa: F811
) -> None:
    """A roll-out that forgot the rebuild: the live view stands still."""
    append(live, 0, 100)
    before = start(*command("--projection", "clips"))
    until(lambda: lag(before, "clips") == 0, "the version before")
    assert before.stop() == 0
    live.server.client.hdel(VIEWS, f"{live.name}/clips")
    for keys in live.keys:  # as a version would leave it that this one is not
        live.server.client.hset(keys.cursor("clips"), "fingerprint", "0123456789abcdef")
    append(live, 100, 100)

    host = start(*command("--projection", "clips"))

    def is_said() -> bool:
        return host.page("/fleet")[0] == 503 and any(
            "another definition" in text and "aurastream rebuild clips" in text for text in red(host)
        )

    until(is_said, "a red fleet that says why")
    assert host.page("/health")[0] == 200, "a restart would not help"

    done = subprocess.run(
        [PROGRAMS / "aurastream", "rebuild", "clips", "--stream", "clips-live", "--accept"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    until(lambda: host.page("/fleet")[0] == 200, "a green fleet")
    until(
        lambda: [lane["state"] for lane in fleet(host)["lanes"] if is_live(lane, "clips")] == ["kept"] * 4,
        "the one before to be a rollback's alone",
    )


def test_a_poison_event_is_named_with_its_place_and_traceback_and_the_fix_makes_it_green(
    start: Start,  # noqa: F811
    live: Stream,  # noqa: F811
    tmp_path: Path,
) -> None:
    """Whoever is called at night reads it in one place."""
    write_app(tmp_path, "one", poison=77)
    host = start(*command("--projection", "one", apps=("one",)))
    append(live, 0, 70)
    until(lambda: lag(host, "one") == 0, "what comes before")

    (poison,) = live.append([observation(views=77, minute=77, clip="clip-7", event_id="poison")])
    within(lambda: red(host), "a stuck lane")
    (lane,) = [lane for lane in fleet(host)["lanes"] if lane["state"] == "stuck"]
    assert "ValueError: no number I know" in lane["why"]
    assert (lane["trouble"]["event_id"], lane["trouble"]["position"]) == ("poison", poison.position)
    assert "in apply" in lane["trouble"]["traceback"]
    assert host.page("/health")[0] == 200
    until(lambda: lines(host, "lane_stuck"), "a line in the log")

    assert host.stop() == 0
    write_app(tmp_path, "one")
    mended = start(*command("--projection", "one", apps=("one",)))
    until(lambda: lag(mended, "one") == 0, "the fixed one to go on")
    until(lambda: mended.page("/fleet")[0] == 200, "green by itself")
    assert len(lines(host, "lane_stuck")) == 1, "once, not at every try"


def test_a_parked_letter_is_red_until_a_person_has_decided(
    start: Start,  # noqa: F811
    live: Stream,  # noqa: F811
    tmp_path: Path,
) -> None:
    """Its subject waits for as long as nobody looks."""
    (tmp_path / "parking_app.py").write_text(PARKING)
    host = start(*command(apps=("parking",)))
    append(live, 0, 10)
    until(lambda: lag(host, "parking") == 0, "the first events")
    assert host.page("/fleet")[0] == 200

    (place,) = live.append([observation(views=13, minute=13, clip="clip-1", event_id="bad")])
    within(lambda: red(host), "a red fleet")
    (text,) = red(host)
    assert f"1 events parked, the first at {place.position}: RuntimeError: the platform says no" in text
    assert host.page("/health")[0] == 200
    until(lambda: lines(host, "event_set_aside"), "a line in the log")
    assert lines(host, "event_set_aside")[0]["event_id"] == "bad"

    where = f"clips-live/{live.partition_of('clip-1')}/{place.position}"
    words = ("--app", "parking_app", "dead", "discard", "parking", where, "--why", "a test")
    done = subprocess.run(
        [PROGRAMS / "aurastream", *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    until(lambda: host.page("/fleet")[0] == 200, "green again")
    until(lambda: lines(host, "lane_well_again"), "a line of that")


def test_a_silent_server_is_said_within_a_second_and_is_no_reason_to_restart_hosts(
    valkey: str, tmp_path: Path
) -> None:
    """A probe has a second; and a fleet that restarts while its server is away comes back later, not
    sooner.
    """
    process = ServerProcess(valkey)
    host = Host(process.url, tmp_path)
    try:
        until(lambda: host.page("/ready")[0] == 200, "the host")
        process.process.send_signal(signal.SIGSTOP)
        until(lambda: host.page("/ready")[0] == 503, "not to be ready")
        asked_at = time.monotonic()
        (well, health), (away, said) = host.page("/health"), host.page("/fleet")
        took_s = time.monotonic() - asked_at
        process.process.send_signal(signal.SIGCONT)

        assert (well, away) == (200, 503)
        assert "does not answer" in json.loads(health)["server"]
        assert "the server does not answer" in said
        assert took_s < 2.5, took_s
        until(lambda: (host.page("/ready")[0], host.page("/fleet")[0]) == (200, 200), "both to be green")
    finally:
        host.kill()
        process.stop()
