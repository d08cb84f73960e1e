"""
What is installed: event types, projections and processors, ours and a stranger's alike.

A plugin is one module, found by an entry point of the group aurastream.plugins or named with --app. Its Event
subclasses with a tag, its Projection and Processor subclasses with a name, and its UPCASTERS, {(tag,
version): function}, are taken up.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any, ClassVar

import msgspec
from pydantic import ValidationError

from aurastream.projections import Projection, ProjectionError, ProjectionUnknown
from aurastream.streams import BUILT_IN, Codec, Event, Upcaster

GROUP = "aurastream.plugins"


class Worker:
    """What somebody writes and hosts run: the base of processors. name: its group too."""

    name: ClassVar[str]

    def check(self) -> None:
        """Raise ProcessorError when the definition cannot work, naming what to mend."""
        raise NotImplementedError(f"{type(self).__name__} has no check")


class PluginError(ProjectionError):
    """What is installed cannot be used."""


class PluginBroken(PluginError):
    """A plugin cannot be loaded."""

    def __init__(self, name: str, error: BaseException) -> None:
        super().__init__(
            f"the plugin {name!r} cannot be loaded ({type(error).__name__}: {error}). Mend it, uninstall "
            "it, or correct --app."
        )
        self.name = name


class NameTaken(PluginError):
    """Two projections or processors (both are groups), or two event types, have one name."""

    def __init__(self, what: str, name: str, one: type, other: type) -> None:
        first, second = (f"{kind.__module__}.{kind.__qualname__}" for kind in (one, other))
        super().__init__(
            f"two {what} are named {name!r}: {first} and {second}. Rename one, or uninstall its package."
        )
        self.name = name


class Installed(msgspec.Struct, frozen=True):
    """Everything found. projections and processors: by name, ready to work."""

    events: tuple[type[Event], ...]
    projections: dict[str, Projection[Any]]
    upcasters: dict[tuple[str, int], Upcaster]
    processors: dict[str, Worker] = {}

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
    """All entry points and --app modules. Raises PluginBroken, and NameTaken when two share a name."""
    events: dict[str, type[Event]] = {str(kind.__struct_config__.tag): kind for kind in BUILT_IN}
    groups: dict[str, Projection[Any] | Worker] = {}
    upcasters: dict[tuple[str, int], Upcaster] = {}
    for name, module in _modules(apps):
        for found in list(vars(module).values()):
            if not isinstance(found, type):
                continue
            if issubclass(found, Event) and found.__struct_config__.tag:
                tag = str(found.__struct_config__.tag)
                if events.setdefault(tag, found) is not found:
                    raise NameTaken("event types", tag, events[tag], found)
            elif issubclass(found, Projection | Worker) and hasattr(found, "name"):
                held = groups.get(found.name)
                if held is not None and type(held) is not found:
                    is_processor = isinstance(held, Worker) or issubclass(found, Worker)
                    raise NameTaken(
                        "groups" if is_processor else "projections", found.name, type(held), found
                    )
                if held is None:
                    groups[found.name] = _made(name, found)
        upcasters |= getattr(module, "UPCASTERS", {})
    projections = {name: group for name, group in groups.items() if isinstance(group, Projection)}
    processors = {name: group for name, group in groups.items() if isinstance(group, Worker)}
    return Installed(tuple(events.values()), projections, upcasters, processors)


def _modules(apps: Iterable[str]) -> Iterable[tuple[str, ModuleType]]:
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        try:
            yield point.name, point.load()
        except (Exception, SystemExit) as error:
            raise PluginBroken(point.name, error) from error
    for app in apps:
        if "" not in sys.path:
            sys.path.insert(0, "")
        try:
            yield app, importlib.import_module(app)
        except (Exception, SystemExit) as error:
            raise PluginBroken(app, error) from error


def _made(plugin: str, kind: type[Projection[Any] | Worker]) -> Projection[Any] | Worker:
    try:
        group = kind()
        group.check()
    except ValidationError:  # of its settings: the environment is to be mended, not the plugin
        raise
    except Exception as error:
        raise PluginBroken(f"{plugin}: {kind.__name__}", error) from error
    return group
