"""Rows 37 to 39: hosts of unlike choices, of unlike versions, and one that runs until there is nothing
left.
"""

from __future__ import annotations

import threading

from tests.faults.fleet import LOADED_S, Fleet, Host, lagging
from tests.faults.harness import Run
from tests.faults.producers import STREAM
from tests.faults.rows import row
from tests.servers import until

BOUND_S = 1.0 + 1.0 + LOADED_S  # a lease and a second


@row(37, "hosts of unlike choices", bound_s=120)
def hosts_of_unlike_choices_starve_nobody(run: Run) -> None:
    fleet = Fleet(run, run.server().url)
    producer = run.producer(fleet.url, pace_s=0.06)
    choices = [
        {"app": "faults_all"},
        {"app": "faults_one", "words": ("--projection", "counting")},
        {"app": "faults_two"},
        {"app": "faults_noting", "words": ("--stream", "clips")},
        {"app": "faults_both", "words": ("--stream", "notes")},
    ]
    for choice in choices:
        fleet.host(*choice.get("words", ()), app=str(choice["app"]))
    fleet.until_members(len(choices))
    until(lambda: producer.acked > 100, "load")
    run.count(slowest_start_ms=round(1_000 * fleet.goes_on("after all had joined", BOUND_S + 5)))
    rounds = 8 if run.is_long else 2
    for _ in range(rounds):
        place = run.dice.randrange(1, len(choices))
        victim = fleet.hosts[place]
        is_killed = run.dice.random() < 0.5
        victim.kill() if is_killed else victim.terminate()
        until(lambda victim=victim: not victim.is_alive(), "it to end")  # type: ignore[misc]
        run.count(**{"killed" if is_killed else "left": 1})
        fleet.goes_on("after one was gone", BOUND_S)
        choice = choices[place]
        fleet.hosts[place] = fleet.host(*choice.get("words", ()), app=str(choice["app"]))
        fleet.hosts.pop()
        fleet.goes_on("after one had come", BOUND_S)
    threading.Event().wait(run.lasts(1, 10))
    fleet.judge(effects="repeated")


@row(38, "hosts of unlike versions, and a rebuild between them", bound_s=120)
def hosts_of_unlike_versions_keep_the_live_view_moving(run: Run) -> None:
    fleet = Fleet(run, run.server().url)
    producer = run.producer(fleet.url, pace_s=0.06)
    for _ in range(2):
        fleet.host(app="faults_v1")
    fleet.until_members(2)
    until(lambda: producer.acked > 100, "load")
    for _ in range(2):
        fleet.host(app="faults_v2")
    fleet.until_members(4)
    fleet.goes_on("after hosts of the next version had joined", BOUND_S)
    code, text = fleet.verb(
        "--app", "faults_v2", "rebuild", "counting", "--stream", STREAM, "--accept", "--why", "version 2"
    )
    if code:
        run.complain(f"rebuild ended with {code}: {text[-600:]}")
    _live_view_goes_on(fleet, "after the rebuild, beside old hosts")
    for old in fleet.hosts[:2]:
        old.kill() if run.dice.random() < 0.5 else old.terminate()
    until(lambda: len(fleet.living()) == 2, "the old hosts to end")
    _live_view_goes_on(fleet, "after the old hosts were gone")
    run.stop_producers()
    until(lambda: _is_at_the_end(fleet, "counting@2"), "the live view to be at the log's end", 30)
    fleet.judge_views(("counting@2",))


def _live_view_goes_on(fleet: Fleet, when: str) -> None:
    """Every lane of the second generation, within the bound."""
    before = fleet.positions("counting@2")

    def has_moved() -> bool:
        after = fleet.positions("counting@2")
        return bool(after) and all(old != new for old, new in zip(before, after, strict=True))

    try:
        until(has_moved, "it to go on", BOUND_S)
    except AssertionError:
        fleet.run.complain(
            f"{when} the live view stood still for {BOUND_S:.0f} s: {fleet.positions('counting@2')}"
        )


def _is_at_the_end(fleet: Fleet, group: str) -> bool:
    return fleet.positions(group) == fleet.ends()


@row(39, "run --until-idle beside hosts with processors", bound_s=120)
def until_idle_beside_hosts_handles_nothing_twice(run: Run) -> None:
    fleet = Fleet(run, run.server().url, lease_ms=3_000)  # longer than a busy machine stands still
    producer = run.producer(fleet.url, pace_s=0.06)
    fleet.host()
    fleet.host()
    fleet.until_members(2)
    until(lambda: producer.acked > 100, "load")
    ended: list[Host] = []
    for _ in range(12 if run.is_long else 3):
        guest = fleet.until_idle()
        threading.Event().wait(run.dice.uniform(0.3, 1.5))
        if run.dice.random() < 0.5:
            guest.terminate()
            ended.append(guest)
        run.count(guests=1)
    run.stop_producers()
    for guest in fleet.hosts[2:]:
        try:
            until(lambda guest=guest: not guest.is_alive(), "a guest to end", 90)  # type: ignore[misc]
        except AssertionError:
            lags = [fleet.standing(*lane) for lane in lagging(fleet.client)[:3]]
            how = "terminated" if guest in ended else "left alone"
            run.complain(f"a guest {how} does not end: {guest.pid} {guest.log[-900:]}; lags: {lags}")
            continue
        if guest.code() not in (0, 130, -15):  # -15: before it had begun
            run.complain(f"run --until-idle ended with {guest.code()}: {guest.log[-500:]}")
    fleet.judge(effects="once")
