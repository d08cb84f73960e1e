"""Events as the tests need them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zlib import crc32

from aurastream.projections import Consumer, Projection, check
from aurastream.streams import ClipViewsObserved, Codec, Event, Server, Stream

NOON = datetime(2026, 4, 15, 12, tzinfo=UTC)


def observation(
    views: int = 100, *, minute: float = 0, clip: str = "clip-1", event_id: str = "", **more: Any
) -> ClipViewsObserved:
    """One look at a clip, `minute` minutes after noon."""
    name = event_id or f"{clip}:{minute}:{views}"
    return ClipViewsObserved(
        event_id=name, subject=clip, occurred_at=NOON + timedelta(minutes=minute), views=views, **more
    )


def raw_append(server: Server, stream: Stream, event: Event, position: str = "*") -> str:
    """What a producer does that knows nothing of the index: a plain XADD."""
    raw = Codec().encode(event)
    log = stream.keys[stream.partition_of(event.subject)].log
    return server.client.xadd(log, {"event": raw, "crc32": crc32(raw)}, id=position).decode()


def consume(server: Server, stream: Stream, *projections: Projection[Any], **options: Any) -> None:
    """Consume all there is."""
    Consumer(server, list(projections), lambda: [stream], **options).run(until_idle=True)


def findings(stream: Stream, *projections: Projection[Any]) -> list[str]:
    """What check has to say; empty when view == fold(log)."""
    told = []
    for result in check(stream, list(projections)):
        told += result.complaints + [
            f"{item.table} {item.key}: {item.view} != {item.log}" for item in result.differences
        ]
    return told


def dump(server: Server) -> dict[bytes, bytes]:
    """Every key with its serialised value."""
    return {key: server.client.dump(key) for key in server.client.keys("*")}
