"""
What is installed: event types and projections, ours and a stranger's alike.

A plugin is one module, found by an entry point of the group aurastream.plugins or named with --app. Its Event subclasses with a tag,
its Projection subclasses with a name, and its UPCASTERS, {(tag, version): function}, are taken up.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

import msgspec

from aurastream.projections import Projection, ProjectionError, ProjectionUnknown
from aurastream.streams import BUILT_IN, Codec, Event
from aurastream.streams.codec import Upcaster

GROUP = "aurastream.plugins"


class PluginBroken(ProjectionError):
    """A plugin cannot be loaded."""

    def __init__(self, name: str, error: BaseException) -> None:
        super().__init__(
            f"the plugin {name!r} cannot be loaded ({type(error).__name__}: {error}). Mend it, uninstall it, or correct --app."
        )
        self.name = name


class Installed(msgspec.Struct, frozen=True):
    """Everything found. projections: by name, ready to fold."""

    events: tuple[type[Event], ...]
    projections: dict[str, Projection[Any]]
    upcasters: dict[tuple[str, int], Upcaster]

    def codec(self) -> Codec:
        """Encodes and decodes every installed event type."""
        return Codec(self.events, self.upcasters)

    def projection(self, name: str) -> Projection[Any]:
        """Raises ProjectionUnknown naming what there is."""
        if name not in self.projections:
            raise ProjectionUnknown(name, list(self.projections))
        return self.projections[name]

    def chosen(self, names: Iterable[str]) -> list[Projection[Any]]:
        """The named ones, or all."""
        return [self.projection(name) for name in names] or list(self.projections.values())


def find_plugins(apps: Iterable[str] = ()) -> Installed:
    """All entry points and --app modules. Raises PluginBroken, and ProjectionError when two projections share a name."""
    events: dict[str, type[Event]] = {str(kind.__struct_config__.tag): kind for kind in BUILT_IN}
    projections: dict[str, Projection[Any]] = {}
    upcasters: dict[tuple[str, int], Upcaster] = {}
    for name, module in _modules(apps):
        for found in list(vars(module).values()):
            if not isinstance(found, type):
                continue
            if issubclass(found, Event) and found.__struct_config__.tag:
                events.setdefault(str(found.__struct_config__.tag), found)
            elif issubclass(found, Projection) and hasattr(found, "name"):
                held = projections.get(found.name)
                if held is not None and type(held) is not found:
                    raise ProjectionError(f"two projections are named {found.name!r}: {type(held)} and {found}. Rename one.")
                if held is None:
                    projections[found.name] = _made(name, found)
        upcasters |= getattr(module, "UPCASTERS", {})
    return Installed(tuple(events.values()), projections, upcasters)


def _modules(apps: Iterable[str]) -> Iterable[tuple[str, ModuleType]]:
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        try:
            yield point.name, point.load()
        except Exception as error:
            raise PluginBroken(point.name, error) from error
    for app in apps:
        if "" not in sys.path:
            sys.path.insert(0, "")
        try:
            yield app, importlib.import_module(app)
        except Exception as error:
            raise PluginBroken(app, error) from error


def _made(plugin: str, kind: type[Projection[Any]]) -> Projection[Any]:
    try:
        projection = kind()
        projection.check()
    except ProjectionError:
        raise
    except Exception as error:
        raise PluginBroken(f"{plugin}: {kind.__name__}", error) from error
    return projection
