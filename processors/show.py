"""How results look: tables for people, JSON for programs. Texts from the log are made harmless for a
terminal.
"""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import click
import msgspec
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

ELASTIC_MIN = 8


class _Console(Console):
    """A console whose reader may go away."""

    def on_broken_pipe(self) -> None:
        into_nothing(self.file.fileno())


def into_nothing(descriptor: int) -> None:
    """What is still written there is dropped: its reader has gone away."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, descriptor)
    os.close(nothing)


console = _Console(highlight=False)
notes = _Console(
    stderr=True, highlight=False
)  # progress and remarks: never on stdout, which belongs to the result


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


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table; numbers go right, with thousands apart. Columns named with a trailing ~ give way where the
    terminal is narrow.
    """
    listed = [list(row) for row in rows]
    if not listed:
        line(f"\n{harmless(title)}: nothing", "dim")
        return
    cells = [[column.rstrip("~") for column in columns], *([_cell(value) for value in row] for row in listed)]
    widths = _widths(columns, cells)
    drawn = Table(header_style="dim", box=None, pad_edge=False)
    for index, column in enumerate(columns):
        numeric = all(isinstance(row[index], int | float) or row[index] is None for row in listed)
        drawn.add_column(
            column.rstrip("~"), justify="right" if numeric else "left", no_wrap=True, min_width=widths[index]
        )
    for row in cells[1:]:
        drawn.add_row(*[Text(_cut(cell, width)) for cell, width in zip(row, widths, strict=True)])
    line(f"\n{harmless(title)}", "bold")
    console.print(drawn)


def _widths(columns: Sequence[str], cells: list[list[str]]) -> list[int]:
    """Cells of terminal each column gets (wide characters take two)."""
    widths = [max(cell_len(row[index]) for row in cells) for index in range(len(columns))]
    elastic = [index for index, column in enumerate(columns) if column.endswith("~")]
    over = sum(widths) + 2 * (len(widths) - 1) - console.width
    while over > 0 and elastic:
        widest = max(elastic, key=lambda index: widths[index])
        if widths[widest] <= ELASTIC_MIN:
            break
        widths[widest] -= 1
        over -= 1
    return widths


def _cut(text: str, width: int) -> str:
    return text if cell_len(text) <= width else set_cell_size(text, width - 1).rstrip() + "…"


def _cell(value: Any) -> str:
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


def line(text: str, style: str = "") -> None:
    """One line of the result."""
    console.print(Text(text, style=style), soft_wrap=True)


def as_json(value: Any) -> None:
    """The result for programs: one JSON document on stdout."""
    try:
        click.echo(msgspec.json.format(msgspec.json.encode(value), indent=1))
    except BrokenPipeError:
        into_nothing(sys.stdout.fileno())
