"""What a host runs, and where from: its options with the settings they need."""

from __future__ import annotations

import socket

import msgspec

from aurastream.processors import NotConfigured
from aurastream.streams import EmbeddedServer, Settings, checked_name, home_directory


class Options(msgspec.Struct, frozen=True):
    """What a host runs. projections: names; empty is all, and all processors. streams: names; empty is all.

    apps: modules beside the installed plugins.
    web_port: of /health, /ready and /metrics on loopback; 0 is any free port; None is no pages.
    """

    projections: tuple[str, ...] = ()
    streams: tuple[str, ...] = ()
    apps: tuple[str, ...] = ()
    web_port: int | None = 6066


def broker_of(settings: Settings) -> str:
    """The URL of the broker as Faust takes it: Kafka in batches, our server, or the embedded one."""
    if settings.broker is not None:
        return settings.broker.get_secret_value().replace("kafka://", "kafka+batch://", 1)
    return (
        str(settings.redis_url.get_secret_value())
        if settings.redis_url
        else EmbeddedServer(home_directory()).url
    )


def kafka_topics_of(settings: Settings, options: Options) -> tuple[str, ...]:
    """The Kafka topics to consume; none without a broker. Raises NotConfigured: a broker without topics."""
    if settings.broker is None:
        return ()
    named = options.streams or tuple(name.strip() for name in settings.topics.split(",") if name.strip())
    if not named:
        raise NotConfigured(
            "AURASTREAM_BROKER is set and no topic: name them in AURASTREAM_TOPICS, separated by commas."
        )
    return tuple(checked_name("stream", name) for name in named)


def free_port(wanted: int | None) -> int:
    """The port, or for 0 one that is free now."""
    if wanted:
        return wanted
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
