"""What the verbs share: the server with its plugins, and the choice of a stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import msgspec

from aurastream.processors import Connection, Installed, connected, find_plugins, remark
from aurastream.processors.commands.when import watch
from aurastream.projections import Projection, ProjectionError, View
from aurastream.projections.engine import as_live, unlike
from aurastream.projections.past import AsOf
from aurastream.streams import OPERATIONS, History, Server, Settings, Stream, list_streams, open_stream
from aurastream.streams.archive import history_of


class Session(msgspec.Struct, frozen=True):
    """A server and what is installed. apps: the modules named by --app."""

    connection: Connection
    installed: Installed
    apps: tuple[str, ...] = ()

    @property
    def server(self) -> Server:
        """The server."""
        return self.connection.server

    @property
    def settings(self) -> Settings:
        """The process's settings."""
        return self.connection.settings

    def open(self, name: str, *, create: bool = False) -> Stream:
        """A stream with the codec of all installed event types."""
        return open_stream(
            self.server, name, codec=self.installed.codec(), settings=self.settings, create=create
        )

    def history(self, stream: Stream) -> History:
        """The stream's whole past: the archive that the settings name, then the log."""
        return history_of(stream, self.settings)

    def operations(self) -> Stream:
        """The audit trail, made where it is new."""
        return self.open(OPERATIONS, create=True)

    def recorded(self, stream: Stream, projection: Projection[Any]) -> Projection[Any]:
        """The projection by the settings that the stream's view was made with, which is said where this
        environment has others.
        """
        recorded = as_live(stream, projection)
        if settings := unlike(recorded, projection):
            name = projection.name
            remark(
                f"the view {name} of {stream.name} goes by its own settings: {settings}. `aurastream rebuild "
                f"{name} --stream {stream.name}` makes one by these."
            )
        return recorded

    def reader(self, stream: Stream, projection: Projection[Any], when: AsOf | None) -> View[Any]:
        """The view of now, or as of a time; warnings and progress go to stderr."""
        if when is None:
            return View(stream, projection)
        from aurastream.processors.history import reader

        return reader(stream, projection, when, self.apps, watch())

    def streams(self, names: tuple[str, ...] = ()) -> list[Stream]:
        """The named streams, or all there are, topics of Faust apps among them."""
        if names:
            return [self.open(name).as_events() for name in names]
        return [self.open(name) for name in list_streams(self.server)]

    def folded_by(self, projection: Projection[Any]) -> list[Stream]:
        """The streams of its events; of the system streams those alone that the projection names."""
        return [
            stream
            for stream in self.streams()
            if projection.takes(stream) and (not stream.is_system or projection.streams is not None)
        ]

    def holding(self, projection: Projection[Any], name: str | None) -> Stream:
        """The named stream, or the only one whose view by this projection holds something.

        A system stream is meant only where it is named, by the caller or by the projection.
        Raises ProjectionError when there is none, UsageError naming the choices when there is more than one.
        """
        if name is not None:
            return self.open(name)
        every = self.folded_by(projection)
        holding = [stream for stream in every if _holds(stream, projection)]
        if not holding:
            raise _nothing_held(projection.name, every)
        if len(holding) > 1:
            raise _several_held(projection.name, holding)
        return holding[0]

    def folded_stream(self, projection: Projection[Any], name: str | None) -> Stream:
        """As ``holding``; of a view that never was, the only stream it folds."""
        try:
            return self.holding(projection, name)
        except ProjectionError:
            every = self.folded_by(projection)
            if name is not None or len(every) != 1:
                raise
            return every[0]


def _holds(stream: Stream, projection: Projection[Any]) -> bool:
    return any(cursor.applied for cursor in View(stream, projection).cursors().values())


def _nothing_held(view: str, streams: list[Stream]) -> ProjectionError:
    known = ", ".join(stream.name for stream in streams) or "none yet"
    return ProjectionError(
        f"no stream's view {view!r} holds anything (streams: {known}). "
        "Append or import, then `aurastream run --until-idle`."
    )


def _several_held(view: str, streams: list[Stream]) -> click.UsageError:
    names = ", ".join(stream.name for stream in streams)
    return click.UsageError(f"several streams have a view {view!r}: {names}; choose with --stream")


@contextmanager
def opened(context: click.Context, home: Path | None = None, patience_s: float = -1) -> Iterator[Session]:
    """The server and the plugins, for one command. patience_s: how long the server is waited for; default: as
    the settings say.
    """
    apps = tuple(context.obj or ())
    installed = find_plugins(apps)
    with connected(home, patience_s) as connection:
        yield Session(connection, installed, apps)


def cached_streams(session: Session, names: tuple[str, ...]) -> Callable[[], list[Stream]]:
    """The streams to consume, opened once each; new ones are found when asked again."""
    opened: dict[str, Stream] = {}

    def streams() -> list[Stream]:
        for name in names or list_streams(session.server):
            if name not in opened:
                opened[name] = session.open(name).as_events() if names else session.open(name)
        return list(opened.values())

    return streams
