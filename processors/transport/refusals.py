"""
What Faust has and these transports have not: tables, joins, transactions, ask. Refused with a sentence, at
definition or at start.

Faust's settings name the classes of its table manager and its streams; ours take the places of the defaults
there, so that the refusal is where the feature is used. An app that set classes of its own keeps them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn, cast

import faust
from faust.tables.manager import TableManager
from faust.types import AppT, CollectionT
from faust.types.enums import ProcessingGuarantee

from aurastream.processors.host import NotOffered
from aurastream.processors.transport.entries import Headers

REPLY_HEADER = "Faust-Ag-ReplyTo"
INSTEAD_OF_TABLES = (
    "Fold the stream with a projection (aurastream.projections.Projection): its views are in Redis, exact "
    "after any crash"
)
INSTEAD_OF_JOINS = (
    "Send to a topic keyed as you need it and consume that with another agent, or fold both streams with a "
    "projection"
)
INSTEAD_OF_ASK = "Send to a topic and read the answer from a view, or call the worker's web page"


class NoTables(TableManager):
    """Faust's table manager without tables, and so without the second it gives them to be defined."""

    def add(self, table: CollectionT) -> CollectionT:
        """Refuse."""
        raise NotOffered(
            f"the table {table.name!r} cannot be kept: tables are not offered over Redis Streams",
            INSTEAD_OF_TABLES,
        )

    async def on_start(self) -> None:
        """Without the pause of 1.0 s (faust 0.15.3, tables/manager.py:140)."""
        await self._update_channels()
        await self.recovery.start()


class PlainStream(faust.Stream[Any]):
    """A stream that cannot be regrouped or joined."""

    def group_by(self, *_: object, **__: object) -> NoReturn:
        """Refuse."""
        self._refuse("stream.group_by is not offered over Redis Streams")

    def through(self, *_: object, **__: object) -> NoReturn:
        """Refuse."""
        self._refuse("stream.through is not offered over Redis Streams")

    def _join(self, *_: object, **__: object) -> NoReturn:
        self._refuse("joins are not offered over Redis Streams")

    def _refuse(self, what: str) -> NoReturn:
        error = NotOffered(what, INSTEAD_OF_JOINS)
        if self.app.started:  # inside an agent, whose crash Faust would only log and repeat
            cast(Any, self.app).add_future(self.app.crash(error))
        raise error


def refuse_transactions(app: AppT) -> None:
    """Raise NotOffered for processing_guarantee=exactly_once."""
    if cast(Any, app.conf).processing_guarantee == ProcessingGuarantee.EXACTLY_ONCE:
        raise NotOffered(
            "processing_guarantee=exactly_once is not offered over Redis Streams",
            "Use at_least_once; projections count every event once by their own cursor, and topic.send is "
            "idempotent",
        )


def take_places(app: AppT) -> None:
    """Put the refusing classes where Faust's defaults are, unless they are in use already
    (``refuse_at_start`` sees to those).
    """
    conf: Any = app.conf
    for setting, default, ours in (
        ("TableManager", TableManager, NoTables),
        ("Stream", faust.Stream, PlainStream),
    ):
        # Past the settings' own __getattribute__, which takes a look for a use and then warns of a late
        # change.
        if object.__getattribute__(conf, setting) is default and setting not in conf._accessed:
            setattr(conf, setting, ours)


def refuse_at_start(app: AppT) -> None:
    """Raise NotOffered for tables defined before the transport was, and for a client that awaits replies."""
    if app.tables:
        raise NotOffered(
            f"tables ({', '.join(sorted(app.tables))}) are not offered over Redis Streams", INSTEAD_OF_TABLES
        )
    if app.client_only or app.conf.reply_create_topic:
        raise NotOffered("agent.ask is not offered over Redis Streams", INSTEAD_OF_ASK)


def refuse_ask(headers: Headers) -> None:
    """Raise NotOffered for a message that asks for a reply."""
    names = headers if isinstance(headers, Mapping) else [name for name, _ in headers or ()]
    if REPLY_HEADER in names:
        raise NotOffered("agent.ask is not offered over Redis Streams", INSTEAD_OF_ASK)
