"""What is not offered is refused with a sentence that names what to use instead."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import faust
import pytest

from aurastream.processors.transport import NotOffered, batch_topic
from aurastream.streams import ServerAway
from tests.processors.transport.members import eventually


def app_on(url: str, directory: Path, **settings: Any) -> faust.App:
    return faust.App(
        "refused", broker=url, datadir=str(directory), web_enabled=False, autodiscover=False, **settings
    )


def test_a_table_is_refused_where_it_is_defined(valkey_url: str, tmp_path: Path) -> None:
    """Its author reads the remedy at once, instead of finding an empty table in production."""
    app = app_on(valkey_url, tmp_path)
    app.topic("t")
    app.transport  # noqa: B018 - as an agent before it would
    with pytest.raises(NotOffered, match="Fold the stream with a projection"):
        app.Table("counts", default=int)


def test_a_table_that_was_defined_before_the_first_agent_is_refused_at_the_start(
    valkey_url: str, tmp_path: Path
) -> None:
    """Before the transport exists nothing can refuse it; the start still can."""

    async def scenario() -> None:
        app = app_on(valkey_url, tmp_path)
        app.Table("counts", default=int)
        with pytest.raises(NotOffered, match="counts"):
            await app.consumer.start()

    asyncio.run(scenario())


@pytest.mark.parametrize("use", ["group_by", "through", "join"])
def test_streams_that_are_regrouped_or_joined_stop_the_worker(
    valkey_url: str, tmp_path: Path, use: str
) -> None:
    """An agent that raises is restarted by Faust for ever, and only its log would say so."""

    async def scenario() -> None:
        app = app_on(valkey_url, tmp_path)
        topic = app.topic("t", value_type=int)

        async def regroup(stream: Any) -> None:
            async for _ in {
                "group_by": lambda: stream.group_by(str, name="x"),
                "through": lambda: stream.through("u"),
                "join": stream.join,
            }[use]():
                pass

        app.agent(topic, name="regroup")(regroup)
        await app.start()
        await eventually(lambda: app.crashed, "the app to crash")
        assert isinstance(app.crash_reason, NotOffered)
        assert "another agent" in str(app.crash_reason)
        await app.stop()

    asyncio.run(scenario())


def test_transactions_are_refused_at_once(valkey_url: str, tmp_path: Path) -> None:
    """An app that believes in exactly once must not run without it."""
    app = app_on(valkey_url, tmp_path, processing_guarantee="exactly_once")
    with pytest.raises(NotOffered, match="at_least_once"):
        app.transport  # noqa: B018


def test_ask_is_refused_when_it_is_asked(valkey_url: str, tmp_path: Path) -> None:
    """A reply that never comes is worse than a sentence."""

    async def scenario() -> None:
        app = app_on(valkey_url, tmp_path)

        async def double(stream: Any) -> Any:
            async for value in stream:
                yield value * 2

        agent: Any = app.agent(app.topic("t", value_type=int), name="double")(double)
        await app.start()
        with pytest.raises(NotOffered, match="read the answer from a view"):
            await agent.ask(3)
        await app.stop()

    asyncio.run(scenario())


def test_batches_over_a_transport_without_them_are_refused(tmp_path: Path) -> None:
    """The agent would be handed single messages and fail at the first."""
    app = app_on("kafka://nowhere", tmp_path)
    with pytest.raises(NotOffered, match=r"kafka\+batch://"):
        batch_topic(app, "clips")


def test_a_server_that_is_not_there_is_waited_for_and_named_without_its_password(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sentence goes into logs; an app that is started before its server begins once that is there."""

    async def scenario() -> str:
        app = app_on("redis://:secret@127.0.0.1:1/0", tmp_path)
        starting = asyncio.create_task(app.producer.start())
        said = ""
        while "cannot reach the Redis server" not in said:
            await asyncio.sleep(0.02)
            said += "".join(capsys.readouterr())
        app._stopped.set()
        with pytest.raises(ServerAway):
            await asyncio.wait_for(starting, 20)
        return said

    assert "secret" not in asyncio.run(scenario())
