"""
How results look: tables for people, JSON for programs. Texts from the log are made harmless for a terminal.

The result goes to stdout, remarks and progress to stderr. rich is imported when something is drawn with it: a
verb that answers in JSON does not wait for it.
"""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from textwrap import TextWrapper
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from rich.console import Console

ELASTIC_MIN = 8  # cells a column keeps where the terminal is narrow
UNBOUNDED = 100_000  # cells of a line that nobody's terminal shows


@cache
def _console(*, is_stderr: bool = False) -> Console:
    """As wide as the terminal, or as COLUMNS says; a pipe has no width, so nothing is cut for it."""
    from rich.console import Console

    class Drawing(Console):
        def on_broken_pipe(self) -> None:
            into_nothing(self.file.fileno())

    is_narrow = (sys.stderr if is_stderr else sys.stdout).isatty() or "COLUMNS" in os.environ
    return Drawing(stderr=is_stderr, highlight=False, width=None if is_narrow else UNBOUNDED)


def into_nothing(descriptor: int) -> None:
    """What is still written there is dropped: its reader has gone away."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, descriptor)
    os.close(nothing)


def harmless(text: str, width: int = 0) -> str:
    """Control characters and bidirectional overrides as \\uXXXX; cut to width characters where given."""
    shown = "".join(
        _escaped(char) if unicodedata.category(char) in {"Cc", "Cf", "Cs"} else char for char in text
    )
    return shown if not width or len(shown) <= width else shown[: width - 1] + "…"


def _escaped(char: str) -> str:
    if char in "\u200c\u200d":  # joiners: emoji and several scripts need them, and they move nothing
        return char
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"


def line(text: str, style: str = "", *, is_cut: bool = False) -> None:
    """One line of the result; is_cut: at the terminal's edge."""
    from rich.text import Text

    whole = Text(text, style=style)
    if is_cut:
        _console().print(whole, no_wrap=True, overflow="ellipsis", crop=True)
    else:
        _console().print(whole, soft_wrap=True)


def remark(text: str, style: str = "") -> None:
    """One line on stderr: what is no part of the result."""
    from rich.text import Text

    _console(is_stderr=True).print(Text(text, style=style), soft_wrap=True)


def as_json(value: object) -> None:
    """The result for programs: one JSON document on stdout."""
    try:
        print(msgspec.json.format(msgspec.json.encode(value), indent=1).decode(), flush=True)
    except BrokenPipeError:
        into_nothing(sys.stdout.fileno())


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table; numbers go right, with thousands apart. Columns named with a trailing ~ give way where the
    terminal is narrow.
    """
    listed = [list(row) for row in rows]
    if not listed:
        line(f"\n{harmless(title)}: nothing", "dim")
        return
    from rich.table import Table
    from rich.text import Text

    names = [column.rstrip("~") for column in columns]
    cells = [names, *([_cell(value) for value in row] for row in listed)]
    widths = _widths(columns, cells)
    drawn = Table(header_style="dim", box=None, pad_edge=False)
    for index, name in enumerate(names):
        is_numeric = all(isinstance(row[index], int | float) or row[index] is None for row in listed)
        drawn.add_column(
            name, justify="right" if is_numeric else "left", no_wrap=True, min_width=widths[index]
        )
    for row in cells[1:]:
        drawn.add_row(*[Text(_cut(cell, width)) for cell, width in zip(row, widths, strict=True)])
    line(f"\n{harmless(title)}", "bold")
    _console().print(drawn)


def stacked(columns: Sequence[str], rows: Iterable[Sequence[object]], indent: int = 2) -> None:
    """A table whose first column is names, which are never cut: where a row does not fit, its other cells
    stand in the line below. Columns of nothing but zeros are left out.
    """
    listed = [list(row) for row in rows]
    kept = [0, *[i for i in range(1, len(columns)) if any(row[i] for row in listed)]]
    cells = [[columns[i] for i in kept], *[[_cell(row[i]) for i in kept] for row in listed]]
    numeric = {
        place for place, i in enumerate(kept) if all(isinstance(row[i], int | float) for row in listed)
    }
    from rich.cells import cell_len

    widths = [max(cell_len(row[place]) for row in cells) for place in range(len(kept))]
    is_wide = indent + sum(widths) + 2 * (len(widths) - 1) > _console().width
    for number, row in enumerate(cells):
        padded = [_padded(cell, widths[place], place in numeric) for place, cell in enumerate(row)]
        style = "dim" if not number else ""
        if is_wide:
            line(" " * indent + row[0], style)
            line(" " * (indent + 2) + "  ".join(padded[1:]).rstrip(), style)
        else:
            line(" " * indent + "  ".join(padded).rstrip(), style)


def _padded(cell: str, width: int, is_right: bool) -> str:
    from rich.cells import cell_len

    room = " " * (width - cell_len(cell))
    return room + cell if is_right else cell + room


def paragraph(text: str, style: str = "", indent: str = "  ") -> None:
    """A text in whole words, names and positions too, within the terminal; what follows the first line is
    indented further.
    """
    whole = TextWrapper(
        _console().width, indent, indent + "  ", break_long_words=False, break_on_hyphens=False
    )
    for each in whole.wrap(harmless(text)):
        line(each, style)


def _widths(columns: Sequence[str], cells: list[list[str]]) -> list[int]:
    """Cells of terminal each column gets (wide characters take two)."""
    from rich.cells import cell_len

    widths = [max(cell_len(row[index]) for row in cells) for index in range(len(columns))]
    elastic = [index for index, column in enumerate(columns) if column.endswith("~")]
    over = sum(widths) + 2 * (len(widths) - 1) - _console().width
    while over > 0 and elastic:
        widest = max(elastic, key=lambda index: widths[index])
        if widths[widest] <= ELASTIC_MIN:
            break
        widths[widest] -= 1
        over -= 1
    return widths


def _cut(text: str, width: int) -> str:
    from rich.cells import cell_len, set_cell_size

    return text if cell_len(text) <= width else set_cell_size(text, width - 1).rstrip() + "…"


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.2f}"
    if isinstance(value, dict | list):
        value = msgspec.json.encode(value).decode()
    return harmless(str(value))


class Bar:
    """How far some work is, in the work's own units."""

    def __init__(self, what: str, total: int | None, draw: Callable[[Bar], None]) -> None:
        self.what, self.total, self.done, self._draw = what, total, 0, draw

    def to(self, done: int, total: int | None = None, what: str | None = None) -> None:
        """So many are done; of so many, at another step, where that is new."""
        self.done, self.total, self.what = done, total or self.total, what or self.what
        self._draw(self)

    def by(self, more: int) -> None:
        """So many more are done."""
        self.to(self.done + more)


@contextmanager
def progress_bar(what: str, total: int | None = None, *, is_hidden: bool = False) -> Iterator[Bar]:
    """A bar on stderr where that is a terminal, with rate, time and time to go; else nothing."""
    if is_hidden or not sys.stderr.isatty():
        yield Bar(what, total, lambda bar: None)
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = [SpinnerColumn(), TextColumn("{task.description}"), BarColumn(30), MofNCompleteColumn()]
    columns += [TextColumn("{task.fields[rate]}"), TimeElapsedColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=_console(is_stderr=True), transient=True) as shown:
        task = shown.add_task(what, total=total, rate="")

        def draw(bar: Bar) -> None:
            speed = shown.tasks[0].speed
            rate = f"{speed:,.0f}/s" if speed else ""
            shown.update(task, description=bar.what, completed=bar.done, total=bar.total, rate=rate)

        yield Bar(what, total, draw)
