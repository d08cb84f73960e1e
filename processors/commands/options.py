"""
The options that verbs share, and their types.

A verb with many options takes them as one struct: ``@into(Options)`` below its options.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import wraps
from typing import Any, TypeVar

import click

from aurastream.processors import parsed_duration, parsed_time
from aurastream.streams import checked_words

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
    """A length of time, as 24h. zero: what a bare 0 means; "" refuses it, as it would mean everything."""

    name = "duration"

    def __init__(self, longest: timedelta | None = DURATION_MAX, zero: str = "") -> None:
        self._longest, self._zero = longest, zero

    def convert(
        self, value: str | timedelta, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        """A number and a unit."""
        try:
            duration = value if isinstance(value, timedelta) else parsed_duration(value)
        except ValueError as error:
            self.fail(f"{error}; 0 {self._zero}" if self._zero else str(error), param, ctx)
        if value == "0" and not self._zero:
            self.fail("'0' is no time: give a number and s, m, h, d or w, as in 36h or 7d", param, ctx)
        if self._longest is not None and duration > self._longest:
            self.fail(f"{value!r} is too long: 10 years at most", param, ctx)
        return duration


class Words(click.ParamType):
    """A person's words for the audit trail: as much as an event can hold."""

    name = "text"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Bounded."""
        return checked_words(param.opts[0] if param else self.name, value)


json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
stream_option = click.option("--stream", "stream_name", metavar="NAME", help="Which stream.")
stream_option_all = click.option(
    "--stream", "stream_names", multiple=True, metavar="NAME", help="Only this stream (repeatable)."
)
projection_option = click.option(
    "--projection", "names", multiple=True, metavar="NAME", help="Only this one (repeatable)."
)
why_option = click.option("--why", default="", type=Words(), metavar="TEXT", help="For the audit trail.")
keep_option = click.option(
    "--keep",
    default="24h",
    show_default=True,
    type=Duration(zero="keeps nothing"),
    metavar="TIME",
    help="How long the other generation is kept: 24h, 7d; 0 keeps nothing.",
)


def by_option(clocks: str) -> Callable[[F], F]:
    """--by; clocks: says what the two choices mean."""
    choices = click.Choice(["occurred", "appended"])
    return click.option("--by", type=choices, default="occurred", show_default=True, help=clocks)


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
