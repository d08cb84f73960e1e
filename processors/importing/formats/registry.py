"""
Which formats there are: ours, and those of installed packages.

A package names each of its formats, a ``Format`` object, by an entry point of the group aurastream.formats; a
module named with --app has them as values. Ours come in by the same door.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.metadata import entry_points

from aurastream.processors import app_module
from aurastream.processors.importing.formats.rows import Format, FormatError
from aurastream.processors.importing.formats.tables import OURS

FORMATS_GROUP = "aurastream.formats"


class FormatUnfit(FormatError):
    """An installed format cannot be used."""


def find_formats(apps: Iterable[str] = ()) -> dict[str, Format]:
    """By name. Raises FormatUnfit for what cannot be loaded, is no Format, or has a name that is taken."""
    known: dict[str, Format] = {}
    for origin, form in _offered(apps):
        if not isinstance(form, Format):
            raise FormatUnfit(
                f"the format {origin!r} is a {type(form).__name__} and no Format. Mend its package."
            )
        if known.setdefault(form.name, form) is not form:
            raise FormatUnfit(
                f"two formats are named {form.name!r}, one of them {origin!r}. Rename one, or uninstall its "
                "package."
            )
    return known


def _offered(apps: Iterable[str]) -> Iterator[tuple[str, object]]:
    yield from ((form.name, form) for form in OURS)
    for point in sorted(entry_points(group=FORMATS_GROUP), key=lambda point: point.name):
        try:
            yield point.name, point.load()
        except Exception as error:
            raise FormatUnfit(
                f"the format {point.name!r} cannot be loaded ({type(error).__name__}: {error}). Mend its "
                "package, or uninstall it."
            ) from error
    for app in apps:
        values = vars(app_module(app)).items()
        yield from ((f"{app}.{name}", value) for name, value in values if isinstance(value, Format))
