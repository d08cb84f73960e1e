"""How results look: tables for people, JSON for programs. Texts from the log are made harmless for a terminal."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

console = Console(highlight=False)
notes = Console(stderr=True, highlight=False)  # progress and remarks: never on stdout, which belongs to the result


def harmless(text: str, width: int = 0) -> str:
    """Control characters and bidirectional overrides as \\uXXXX; cut to width characters where given."""
    shown = "".join(
        f"\\u{ord(char):04x}" if unicodedata.category(char) in {"Cc", "Cf", "Cs", "Co", "Cn"} and char != " " else char for char in text
    )
    return shown if not width or len(shown) <= width else shown[: width - 1] + "…"


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table; numbers go right, with thousands apart. A column named with a trailing ~ may be cut."""
    drawn = Table(title=title, title_justify="left", title_style="bold", header_style="dim", box=None, pad_edge=False)
    listed = [list(row) for row in rows]
    for index, column in enumerate(columns):
        numeric = bool(listed) and all(isinstance(row[index], int | float) or row[index] is None for row in listed)
        drawn.add_column(
            column.rstrip("~"),
            justify="right" if numeric else "left",
            no_wrap=True,
            overflow="ellipsis",
            ratio=1 if column.endswith("~") else None,
        )
    for row in listed:
        drawn.add_row(*[Text(_cell(value)) for value in row])
    console.print()
    if listed:
        console.print(drawn)
    else:
        console.print(Text(f"{title}: nothing", style="dim"))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.2f}"
    return harmless(str(value))


def line(text: str, style: str = "") -> None:
    """One line of the result."""
    console.print(Text(text, style=style), soft_wrap=True)


def as_json(value: Any) -> None:
    """The result for programs: one JSON document on stdout."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=1).decode())
