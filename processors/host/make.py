"""
Make the host's app, not started: its settings, its hooks, its pages.

    make_app(options) -> App     `aurastream run` starts it; default.py holds the default one for `faust -A`
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from aurastream.processors import library_logs
from aurastream.processors.host.app import GROUP, App, RedisApp
from aurastream.processors.host.kafka_app import KafkaApp
from aurastream.processors.host.options import Options, broker_of, free_port, kafka_topics_of
from aurastream.processors.host.pages import serve_pages
from aurastream.processors.host.sight import Away
from aurastream.streams import Logger, Settings, is_passing

LOOK_EVERY_S = 1.0
WATCH_EVERY_S = 1.0  # with a lease of 3 s: what a killed leader ran is said to be nobody's within 5

log = Logger("aurastream.host")


def make_app(options: Options | None = None) -> App:
    """The app, not started. Raises the typed errors of settings and plugins."""
    settings, options = Settings(), options or Options()
    kafka_topics_of(settings, options)  # what is missing is said before anything is made
    kind = RedisApp if settings.broker is None else KafkaApp
    app = kind(
        GROUP,
        broker=broker_of(settings),
        autodiscover=False,
        web_enabled=options.web_port is not None,
        web_host="127.0.0.1",
        web_bind="127.0.0.1",
        web_port=free_port(options.web_port),
        topic_disable_leader=True,
        topic_partitions=settings.partitions,
        topic_allow_declare=settings.broker is None,  # a Kafka topic is its owner's to make
        stream_wait_empty=False,  # the cursor is the truth: a batch handed to a lane needs no ack to be safe
        broker_commit_interval=0.5,
        cython_optimizations=True,
        logging_config=library_logs(),
        worker_redirect_stdouts=False,
        Worker="aurastream.processors.host.process:HostProcess",
    )
    app.prepare(options, settings)
    if isinstance(app, KafkaApp):
        _hear_of_partitions(app)
    app.on_before_shutdown.connect(_finish)  # type: ignore[arg-type]
    app.timer(LOOK_EVERY_S)(_guarded(app.look))
    app.timer(WATCH_EVERY_S)(_guarded(app.watch))
    serve_pages(app)
    return app


def _hear_of_partitions(app: KafkaApp) -> None:
    transport: Any = app.transport
    transport.resume_at = app.resume_at
    hooks: list[tuple[Any, Any]] = [  # Faust asks for a signature that no function can have
        (app.on_partitions_assigned, _assigned),
        (app.on_partitions_revoked, _revoked),
    ]
    for signal, hook in hooks:
        signal.connect(hook)


async def _assigned(app: KafkaApp, *arguments: Any, **_: object) -> None:
    await app.assigned(arguments[0])


async def _revoked(app: KafkaApp, *arguments: Any, **_: object) -> None:
    await app.revoked(arguments[0])


async def _finish(app: App, **_: object) -> None:
    await app.finish()


def _guarded(look: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    async def guarded() -> None:
        try:
            await look()
        except Exception as error:  # a timer that raises stops the host
            if not is_passing(error) and not isinstance(error, Away):
                log.error("look_failed", reason=f"{type(error).__name__}: {error}"[:300])

    return guarded
