"""aurastream status: where everything stands."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from aurastream.processors import as_json as print_json
from aurastream.processors import line, table
from aurastream.processors.commands.common import Session, json_option, session
from aurastream.processors.effects import processors_of
from aurastream.projections import View
from aurastream.projections.engine import NEVER_REBUILT, State, read_record
from aurastream.streams import (
    Cursor,
    Lag,
    Settings,
    Stream,
    backlogs,
    cursor_of,
    generation_group,
    lag_of,
    list_streams,
)

NO_LAG_KNOWN = Lag(0, 0.0, 0, rewound=False)  # of a log in Kafka: its tools know, and the worker's /health


@click.command()
@json_option
@click.pass_context
def status(context: click.Context, as_json: bool) -> None:
    """Server, streams, partitions, groups, lag and memory."""
    with session(context) as found:
        memory = _memory(found)
        streams = {name: _stream(found, found.open(name)) for name in list_streams(found.server)}
        known = {
            name: {"version": p.version, "fingerprint": p.fingerprint}
            for name, p in sorted(found.installed.projections.items())
        }
        facts = found.server.facts
        content = {
            "server": {
                "name": facts.name,
                "cluster": facts.is_cluster,
                "eviction": facts.eviction,
                "memory_bytes": memory,
            },
            "home": str(found.connection.home) if found.connection.home else None,
            "streams": streams,
            "projections": known,
        }
    if as_json:
        print_json(content)
    else:
        _show(content)


def _memory(found: Session) -> int:
    info: Any = found.server.client.info("memory")
    nodes = info.values() if found.server.facts.is_cluster and "used_memory" not in info else [info]
    return sum(int(node["used_memory"]) for node in nodes)


def _stream(found: Session, stream: Stream) -> dict[str, Any]:
    client = found.server.client
    partitions = []
    for keys in stream.keys:
        counts: Any = client.hgetall(keys.meta)
        last: Any = client.xrevrange(keys.log, count=1)
        partitions.append(
            {
                "partition": keys.partition,
                "events": client.xlen(keys.log),
                "last": last[0][0].decode() if last else None,
                "appends_repeated": int(counts.get(b"duplicates", 0)),
                "log_bytes": client.memory_usage(keys.log) or 0,
                "ids_bytes": client.memory_usage(keys.ids) or 0,
                "pressure": _pressure(found.settings, stream, keys.partition),
            }
        )
    installed = found.installed
    groups = {
        name: _views(stream, view)
        for name, view in sorted(installed.projections.items())
        if view.folds(stream.name)
    }
    generations = {
        name: _generations(stream, view)
        for name, view in sorted(installed.projections.items())
        if view.folds(stream.name)
    }
    groups |= {
        name: _effects(stream, name)
        for name, effect in sorted(processors_of(installed).items())
        if effect.reads(stream.name)
    }
    return {
        "partitions": partitions,
        "versioned": stream.versioned,
        "groups": groups,
        "generations": generations,
    }


def _generations(stream: Stream, projection: Any) -> list[dict[str, Any]]:
    """Every generation of a view that was ever rebuilt, with how many entries it has read of those there ever
    were.
    """
    record = read_record(stream.server, stream.name, projection.name)
    if record == NEVER_REBUILT:
        return []
    total = 0
    for keys in stream.keys:
        length, trimmed = stream.wire(keys.partition).ask(("XLEN", keys.log), ("HGET", keys.meta, "trimmed"))
        total += int(length) + int(trimmed or 0)
    rows = []
    for item in record.generations:
        view = View(stream, projection, generation=item.number)
        read = 0 if item.state is State.RETIRED else sum(cursor.read for cursor in view.cursors().values())
        rows.append(
            {
                "generation": item.number,
                "state": item.state.value,
                "is_ours": item.fingerprint in ("", projection.fingerprint),
                "read": read,
                "entries": total,
                "by": item.by,
                "started_at": _instant(item.started_ms),
                "swapped_at": _instant(item.swapped_ms),
                "kept_until": _instant(item.kept_until_ms),
                "differing": item.differing if item.compared_with else None,
                "builder": item.builder if item.state is State.BUILDING else None,
            }
        )
    return rows


def _instant(at_ms: int) -> str | None:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="seconds") if at_ms else None


def _pressure(settings: Settings, stream: Stream, partition: int) -> dict[str, Any] | None:
    """The slowest of the groups that producers wait for, and whether they do; None where there is no such
    group.
    """
    slowest = next(iter(backlogs(stream.server, stream.keys[partition])), None)
    if slowest is None:
        return None
    budgets = ((slowest.events, settings.budget_events), (slowest.bytes, settings.budget_bytes))
    is_full = any(budget and behind >= budget for behind, budget in budgets)
    return {"slowest": slowest.group, "events": slowest.events, "bytes": slowest.bytes, "is_full": is_full}


def _views(stream: Stream, projection: Any) -> list[dict[str, Any]]:
    view = View(stream, projection)
    cursors = view.cursors()
    group = generation_group(projection.name, view.generation)
    return [_row(stream, group, partition, cursor) for partition, cursor in cursors.items()]


def _effects(stream: Stream, name: str) -> list[dict[str, Any]]:
    """A processor's rows; its dead letters are those that are parked or wait behind one."""
    rows = []
    for partition, keys in enumerate(stream.keys):
        reply = stream.wire(partition).ask(("HGETALL", keys.cursor(name)))[0]
        rows.append(_row(stream, name, partition, cursor_of(reply)))
    return rows


def _row(stream: Stream, group: str, partition: int, cursor: Cursor) -> dict[str, Any]:
    lag = lag_of(stream.server, stream.keys[partition], cursor) if stream.is_log_here else NO_LAG_KNOWN
    return {
        "partition": partition,
        "position": cursor.position or None,
        "lag_events": lag.events,
        "lag_seconds": lag.seconds,
        "missing": lag.missing,
        "rewound": lag.rewound,
        "pending": _pending(stream, partition, group),
        "applied": cursor.applied,
        "duplicates": cursor.duplicates,
        "skipped": cursor.skipped,
        "dead": cursor.dead,
        "quarantined": cursor.quarantined,
    }


def _pending(stream: Stream, partition: int, group: str) -> int:
    stream.wire(partition).send([("XPENDING", stream.keys[partition].log, group)])
    answer = stream.wire(partition).receive()
    return (
        0 if isinstance(answer, Exception) else int(answer[0])
    )  # an Exception: no such group or log yet, so nothing pends


def _show(content: dict[str, Any]) -> None:
    server = content["server"]
    line(
        f"{server['name']}, {server['memory_bytes'] / 2**20:,.1f} MiB used, eviction "
        f"{server['eviction'] or 'unknown'}"
    )
    if content["home"]:
        line(f"embedded, home {content['home']}")
    streams = content["streams"]
    table(
        "Streams",
        ["stream~", "partitions", "events", "repeats", "log MiB", "ids MiB"],
        [
            [
                name,
                len(stream["partitions"]),
                sum(row["events"] for row in stream["partitions"]),
                sum(row["appends_repeated"] for row in stream["partitions"]),
                sum(row["log_bytes"] for row in stream["partitions"]) / 2**20,
                sum(row["ids_bytes"] for row in stream["partitions"]) / 2**20,
            ]
            for name, stream in streams.items()
        ],
    )
    rows = []
    for name, stream in streams.items():
        for group, parts in stream["groups"].items():
            sums = {
                field: sum(part[field] for part in parts)
                for field in ("lag_events", "applied", "duplicates", "skipped", "dead")
            }
            pending, waiting = (
                sum(part["pending"] for part in parts),
                max(part["lag_seconds"] for part in parts),
            )
            rows.append(
                [
                    name,
                    group,
                    sums["lag_events"],
                    waiting,
                    pending,
                    sums["applied"],
                    sums["duplicates"],
                    sums["skipped"],
                    sums["dead"],
                ]
            )
    table(
        "Groups",
        ["stream~", "group~", "lag", "lag s", "pending", "applied", "dupl.", "skipped", "dead"],
        rows,
    )
    generations = [
        [
            name,
            view,
            item["generation"],
            item["state"],
            f"{item['read']:,} of {item['entries']:,}",
            item["kept_until"],
        ]
        for name, stream in streams.items()
        for view, items in stream["generations"].items()
        for item in items
    ]
    if generations:
        table("Generations", ["stream~", "view~", "generation", "state", "read", "kept until"], generations)
    broken = [
        f"{name}/{part['partition']} ({group})"
        for name, stream in streams.items()
        for group, parts in stream["groups"].items()
        for part in parts
        if part["missing"] or part["rewound"]
    ]
    if broken:
        line(
            f"the log lost entries without the trimmer: {', '.join(broken)}; run `aurastream check`",
            "bold red",
        )
    for name, stream in streams.items():
        for row in stream["partitions"]:
            held = row["pressure"]
            if held and held["is_full"]:
                line(
                    f"producers of {name}/{row['partition']} wait for {held['slowest']}, {held['events']:,} "
                    "events behind",
                    "bold red",
                )
