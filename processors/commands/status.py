"""aurastream status: where everything stands."""

from __future__ import annotations

import time
from collections.abc import Iterator

import click

from aurastream.processors import as_json as print_json
from aurastream.processors import line, paragraph, stacked
from aurastream.processors.commands.common import opened
from aurastream.processors.commands.options import json_option
from aurastream.processors.commands.standing import Standing, StreamStanding, standing
from aurastream.processors.fleet import Colour, FleetHost, FleetLane, LaneState, ranges, shown_lanes

MIB = 2**20
WATCH_S = 2.0
STYLES = {Colour.RED: "bold red", Colour.AMBER: "yellow", Colour.GREEN: "green"}
GROUPS = ["group", "lag", "lag s", "pending", "applied", "dupl.", "skipped", "dead", "lanes"]
SUMMED = ("applied", "duplicates", "skipped", "set_aside")


@click.command()
@click.option("--exit-code", "is_judging", is_flag=True, help="End with 1 when the fleet is red.")
@click.option("--watch", "is_watching", is_flag=True, help="Again every two seconds, until Ctrl-C.")
@json_option
@click.pass_context
def status(context: click.Context, is_judging: bool, is_watching: bool, as_json: bool) -> int:
    """The fleet and its hosts, streams, groups, lag and memory.

    Red is what a person must act on, amber what is worth knowing. All groups of the server are shown,
    installed here or not. Exit code 0 whatever the colour, unless --exit-code is given.
    """
    with opened(context) as session:
        now = standing(session)
        while is_watching and not as_json:
            click.clear()
            _show(now)
            time.sleep(WATCH_S)
            now = standing(session)
    if as_json:
        print_json(now)
    else:
        _show(now)
    return int(is_judging and now.colour is Colour.RED)


def _show(now: Standing) -> None:
    server = now.server
    line(f"{server.name}, {server.memory_bytes / MIB:,.1f} MiB used, eviction {server.eviction or 'unknown'}")
    if now.home:
        line(f"embedded, home {now.home}")
    line(f"\nThe fleet is {now.colour}", STYLES[now.colour])
    for reason in now.reasons:
        paragraph(reason.text, STYLES[reason.colour] if reason.colour is not Colour.GREEN else "dim")
    _show_findings(now)
    _show_hosts(now.hosts)
    quiet = [name for name, stream in now.streams.items() if not _is_used(stream)]
    for name, stream in now.streams.items():
        if name not in quiet:
            _show_stream(name, stream)
    if quiet:
        paragraph(f"nothing yet in: {', '.join(quiet)}", "dim", "")


def _show_hosts(hosts: list[FleetHost]) -> None:
    line(f"\nHosts: {len(hosts) or 'none lives'}", "bold")
    for host in hosts:
        since = f", since {host.started_at.replace('+00:00', 'Z')}" if host.started_at else ""
        build = f", build {host.build}" if host.build else ""
        paragraph(f"{host.host}: {host.kind}{build}{since}, {host.held} of {host.offers} lanes it can run")
        if host.held:
            paragraph(shown_lanes(host), "dim", "    ")
        for note in host.notes:
            paragraph(note, "yellow", "    ")


def _is_used(stream: StreamStanding) -> bool:
    lanes = [lane for parts in stream.groups.values() for lane in parts]
    return any(part.events for part in stream.partitions) or any(lane.read or lane.owner for lane in lanes)


def _show_stream(name: str, stream: StreamStanding) -> None:
    parts = stream.partitions
    events, repeats = sum(part.events for part in parts), sum(part.appends_repeated for part in parts)
    log, ids = sum(part.log_bytes for part in parts), sum(part.ids_bytes for part in parts)
    line(f"\n{name}{' (a topic)' if stream.is_topic else ''}", "bold")
    said = f"{len(parts)} partitions, {events:,} events, {log / MIB:,.2f} MiB log, {ids / MIB:,.2f} MiB ids"
    paragraph(said + (f", {repeats:,} repeats" if repeats else ""))
    rows = [[group, *_group_row(lanes)] for group, lanes in stream.groups.items() if not _is_new(lanes)]
    if rows:
        stacked(GROUPS, rows)
    if new := [group for group, lanes in stream.groups.items() if _is_new(lanes)]:
        paragraph(f"never run: {', '.join(new)}", "dim")
    for view, items in stream.generations.items():
        for item in items:
            kept = f", kept until {item.kept_until.replace('+00:00', 'Z')}" if item.kept_until else ""
            read = f"{item.read:,} of {item.entries:,} read"
            paragraph(f"{view}, generation {item.generation}: {item.state}, {read}{kept}")


def _is_new(lanes: list[FleetLane]) -> bool:
    return all(lane.state is LaneState.NEW for lane in lanes)


def _group_row(lanes: list[FleetLane]) -> Iterator[object]:
    yield sum(lane.lag_events for lane in lanes)
    yield max(lane.lag_seconds for lane in lanes)
    yield sum(lane.pending for lane in lanes)
    for field in SUMMED:
        yield sum(getattr(lane, field) for lane in lanes)
    yield ", ".join(_states(lanes))


def _states(lanes: list[FleetLane]) -> Iterator[str]:
    """run; 0-3 stuck: what the lanes do."""
    for state in LaneState:
        partitions = [lane.partition for lane in lanes if lane.state is state]
        if len(partitions) == len(lanes):
            yield state.value
        elif partitions:
            yield f"{ranges(partitions)} {state.value}"


def _show_findings(now: Standing) -> None:
    """What a person must act on besides."""
    if broken := ", ".join(_broken(now)):
        paragraph(f"the log lost entries without the trimmer: {broken}; run `aurastream check`", "bold red")
    for name, stream in now.streams.items():
        for row in stream.partitions:
            held, where = row.pressure, f"{name}/{row.partition}"
            if held and held.is_full:
                behind = f"{held.events:,} events behind"
                paragraph(f"producers of {where} wait for {held.slowest}, {behind}", "bold red")


def _broken(now: Standing) -> Iterator[str]:
    """The partitions, each with the group that missed entries there."""
    for name, stream in now.streams.items():
        for group, lanes in stream.groups.items():
            for lane in lanes:
                if lane.missing or lane.rewound:
                    yield f"{name}/{lane.partition} ({group})"
