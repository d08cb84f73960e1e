"""aurastream status: where everything stands."""

from __future__ import annotations

from typing import Any

import click

from aurastream.processors.commands.common import Session, json_option, session
from aurastream.processors.show import as_json as print_json
from aurastream.processors.show import line, table
from aurastream.projections import View
from aurastream.streams import Stream, list_streams
from aurastream.streams.groups import lag_of


@click.command()
@json_option
@click.pass_context
def status(context: click.Context, as_json: bool) -> None:
    """Server, streams, partitions, groups, lag and memory."""
    with session(context) as found:
        memory = _memory(found)
        streams = {name: _stream(found, found.open(name)) for name in list_streams(found.server)}
        known = {name: {"version": p.version, "fingerprint": p.fingerprint} for name, p in sorted(found.installed.projections.items())}
        facts = found.server.facts
        content = {
            "server": {"name": facts.name, "cluster": facts.is_cluster, "eviction": facts.eviction, "memory_bytes": memory},
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
            }
        )
    groups = {
        name: _group(stream, projection)
        for name, projection in sorted(found.installed.projections.items())
        if projection.folds(stream.name)
    }
    return {"partitions": partitions, "versioned": stream.versioned, "groups": groups}


def _group(stream: Stream, projection: Any) -> list[dict[str, Any]]:
    rows = []
    for partition, cursor in View(stream, projection).cursors().items():
        keys = stream.keys[partition]
        lag = lag_of(stream.server, keys, cursor)
        rows.append(
            {
                "partition": partition,
                "position": cursor.position or None,
                "lag_events": lag.events,
                "lag_seconds": lag.seconds,
                "missing": lag.missing,
                "rewound": lag.rewound,
                "pending": _pending(stream, partition, projection.name),
                "applied": cursor.applied,
                "duplicates": cursor.duplicates,
                "skipped": cursor.skipped,
                "dead": cursor.dead,
                "quarantined": cursor.quarantined,
            }
        )
    return rows


def _pending(stream: Stream, partition: int, group: str) -> int:
    stream.wire(partition).send([("XPENDING", stream.keys[partition].log, group)])
    answer = stream.wire(partition).receive()
    return 0 if isinstance(answer, Exception) else int(answer[0])  # an Exception: no such group or log yet, so nothing pends


def _show(content: dict[str, Any]) -> None:
    server = content["server"]
    line(f"{server['name']}, {server['memory_bytes'] / 2**20:,.1f} MiB used, eviction {server['eviction'] or 'unknown'}")
    if content["home"]:
        line(f"embedded, home {content['home']}")
    streams = content["streams"]
    table(
        "Streams",
        ["stream", "partitions", "events", "repeats", "log MiB", "ids MiB"],
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
            sums = {field: sum(part[field] for part in parts) for field in ("lag_events", "applied", "duplicates", "skipped", "dead")}
            pending, waiting = sum(part["pending"] for part in parts), max(part["lag_seconds"] for part in parts)
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
    table("Groups", ["stream", "group", "lag", "lag s", "pending", "applied", "dupl.", "skipped", "dead"], rows)
    broken = [
        f"{name}/{part['partition']} ({group})"
        for name, stream in streams.items()
        for group, parts in stream["groups"].items()
        for part in parts
        if part["missing"] or part["rewound"]
    ]
    if broken:
        line(f"the log lost entries without the trimmer: {', '.join(broken)}; run `aurastream check`", "bold red")
