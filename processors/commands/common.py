"""
What the verbs share: options and their types, the server with its plugins, and the choice of a stream.

A verb with many options takes them as one struct: ``@into(Options)`` below its options.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from aurastream.processors import (
    Connection,
    Installed,
    connected,
    find_plugins,
    parsed_duration,
    parsed_time,
    progress_bar,
    remark,
)
from aurastream.projections import Projection, ProjectionError, View
from aurastream.projections.engine import Positions
from aurastream.projections.past import AsOf
from aurastream.streams import OPERATIONS, History, Server, Settings, Stream, list_streams, open_stream
from aurastream.streams.archive import history_of

if TYPE_CHECKING:
    from aurastream.processors.history import Tell, Watch

F = TypeVar("F", bound=Callable[..., object])
Options = TypeVar("Options")
MILLISECOND = timedelta(milliseconds=1)
DURATION_MAX = timedelta(days=10 * 365)


class Time(click.ParamType):
    """A time, in UTC."""

    name = "time"

    def convert(
        self, value: str | datetime, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """ISO 8601."""
        try:
            return value if isinstance(value, datetime) else parsed_time(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Duration(click.ParamType):
    """A length of time, as 24h."""

    name = "duration"

    def __init__(self, longest: timedelta | None = DURATION_MAX) -> None:
        self._longest = longest

    def convert(
        self, value: str | timedelta, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        """A number and a unit."""
        try:
            duration = value if isinstance(value, timedelta) else parsed_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if self._longest is not None and duration > self._longest:
            self.fail(f"{value!r} is too long: 10 years at most", param, ctx)
        return duration


json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
stream_option = click.option("--stream", "stream_name", metavar="NAME", help="Which stream.")
stream_option_all = click.option(
    "--stream", "stream_names", multiple=True, metavar="NAME", help="Only this stream (repeatable)."
)
projection_option = click.option(
    "--projection", "names", multiple=True, metavar="NAME", help="Only this one (repeatable)."
)
why_option = click.option("--why", default="", metavar="TEXT", help="For the audit trail.")
keep_option = click.option(
    "--keep",
    default="24h",
    show_default=True,
    type=Duration(),
    metavar="TIME",
    help="How long the other generation is kept: 24h, 7d; 0 keeps nothing.",
)


def by_option(clocks: str) -> Callable[[F], F]:
    """--by; clocks: says what the two choices mean."""
    choices = click.Choice(["occurred", "appended"])
    return click.option("--by", type=choices, default="occurred", show_default=True, help=clocks)


def at_options(command: F) -> F:
    """--at and --by; the command gets ``at`` and ``by``, for ``as_of``."""
    command = by_option("The clock of --at: event time, or when it was appended.")(command)
    at = "As of this time (ISO 8601; a date is its midnight, no offset means UTC)."
    return click.option("--at", type=Time(), metavar="T", help=at)(command)


class Keyed(click.Command):
    """A command whose arguments may begin with a dash, as many an ID of YouTube's does.

    -h is the only short option there is, so a longer word with one dash is no option.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Such words go behind --, where click leaves them alone."""
        options = (param for param in self.params if isinstance(param, click.Option) and not param.is_flag)
        with_value = {name for option in options for name in option.opts}
        dashed = {
            place
            for place, word in enumerate(args)
            if re.match(r"-[^-].", word) and (place == 0 or args[place - 1] not in with_value)
        }
        if dashed and "--" not in args:
            others = [word for place, word in enumerate(args) if place not in dashed]
            args = [*others, "--", *(args[place] for place in sorted(dashed))]
        return super().parse_args(ctx, args)


def into(
    kind: type[Options],
) -> Callable[[Callable[[click.Context, Options], object]], Callable[..., object]]:
    """The command gets the context and its options as one struct of this kind."""

    def decorated(function: Callable[[click.Context, Options], object]) -> Callable[..., object]:
        @click.pass_context
        @wraps(function)
        def command(context: click.Context, /, **options: Any) -> object:
            return function(context, kind(**options))

        return command

    return decorated


def as_of(at: datetime | None, by: str) -> AsOf | None:
    """What --at and --by mean; None for now. Raises UsageError."""
    if at is not None:
        return AsOf(at, "appended" if by == "appended" else "occurred")
    if by != "occurred":
        raise click.UsageError("--by says which clock --at means: give --at a time as well")
    return None


def title_of(title: str, when: AsOf | None) -> str:
    """With the time it is about."""
    return title if when is None else f"{title} as of {when}"


def told_of(when: AsOf | None) -> dict[str, object]:
    """For JSON: the time it is about, and by which clock."""
    return {} if when is None else {"at": when.at, "by": when.by}


def positions_told(positions: Positions) -> str:
    """For people: which position of which partition an answer reflects."""
    return f"at {', '.join(f'{number}: {position or 0}' for number, position in positions.items())}"


def watch() -> Watch:
    """A bar and remarks on stderr for a folding of the past, where it takes a while."""
    from aurastream.processors.history import Watch

    return Watch(_folding, remark)


SHOWN_FROM = 20_000  # entries to read, from which a progress bar is worth its place


@contextmanager
def _folding(entries: int) -> Iterator[Tell]:
    with progress_bar("folding", entries, is_hidden=entries < SHOWN_FROM) as bar:
        yield bar.by


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

    def reader(self, stream: Stream, projection: Projection[Any], when: AsOf | None) -> View[Any]:
        """The view of now, or as of a time; warnings and progress go to stderr."""
        if when is None:
            return View(stream, projection)
        from aurastream.processors.history import reader

        return reader(stream, projection, when, self.apps, watch())

    def streams(self, names: tuple[str, ...] = ()) -> list[Stream]:
        """The named streams, or all there are."""
        return [self.open(name) for name in names or list_streams(self.server)]

    def folded_by(self, projection: Projection[Any]) -> list[Stream]:
        """The streams of its events; of the system streams those alone that the projection names."""
        return [
            stream
            for stream in self.streams()
            if projection.folds(stream.name) and (not stream.is_system or projection.streams is not None)
        ]

    def holding(self, projection: Projection[Any], name: str | None) -> Stream:
        """The named stream, or the only one whose view by this projection holds something.

        A system stream is meant only where it is named, by the caller or by the projection.
        Raises ProjectionError when there is none, UsageError naming the choices when there is more than one.
        """
        if name is not None:
            return self.open(name)
        every = self.folded_by(projection)
        holding = [
            s for s in every if any(cursor.applied for cursor in View(s, projection).cursors().values())
        ]
        if len(holding) == 1:
            return holding[0]
        if not holding:
            known = ", ".join(stream.name for stream in every) or "none yet"
            raise ProjectionError(
                f"no stream's view {projection.name!r} holds anything (streams: {known}). "
                "Append or import, then `aurastream run --until-idle`."
            )
        raise click.UsageError(
            f"several streams have a view {projection.name!r}: {', '.join(s.name for s in holding)}; choose "
            "with --stream"
        )

    def folded_stream(self, projection: Projection[Any], name: str | None) -> Stream:
        """As ``holding``; of a view that never was, the only stream it folds."""
        try:
            return self.holding(projection, name)
        except ProjectionError:
            every = self.folded_by(projection)
            if name is not None or len(every) != 1:
                raise
            return every[0]


@contextmanager
def session(context: click.Context, home: Path | None = None) -> Iterator[Session]:
    """The server and the plugins, for one command."""
    apps = tuple(context.obj or ())
    installed = find_plugins(apps)
    with connected(home) as connection:
        yield Session(connection, installed, apps)


def cached_streams(session: Session, names: tuple[str, ...]) -> Callable[[], list[Stream]]:
    """The streams to consume, opened once each; new ones are found when asked again."""
    opened: dict[str, Stream] = {}

    def streams() -> list[Stream]:
        for name in names or list_streams(session.server):
            if name not in opened:
                opened[name] = session.open(name)
        return list(opened.values())

    return streams
