"""
What is installed: event types, projections and processors, ours and a stranger's alike.

Not imported here: effects/, which is above this room. A processor is known by its base, ``Worker``, which
every kind of thing that hosts run derives from; so a new kind of worker needs nothing here.

A plugin is one module, found by an entry point of the group aurastream.plugins or named with --app. Its Event
subclasses with a tag, and its Projection and Processor subclasses with a name, are taken up. Upcasters are
the event classes' own (``Event.upcasters``).

Decision (2026-11): what was written before upcasters belonged to the class keeps working: a module's
UPCASTERS, {(tag, version): function}, are given to the classes they name, so that whoever decodes has them;
``upcasters`` of a projection or processor count for it as they did. Refused: to refuse them, as a roll-out of
AuraStream would then begin with a change of every plug-in; to let one of two win, so a class with another
upcaster for the same version is refused.
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

from aurastream.processors.errors import ProcessorError
from aurastream.projections import Projection, ProjectionUnknown
from aurastream.streams import BUILT_IN, Codec, Event, Upcaster

GROUP = "aurastream.plugins"


class Worker:
    """What somebody writes and hosts run: the base of processors. name: its group too."""

    name: ClassVar[str]

    def check(self) -> None:
        """Raise ProcessorError when the definition cannot work, naming what to mend."""
        raise NotImplementedError(f"{type(self).__name__} has no check")


class PluginError(ProcessorError):
    """What is installed cannot be used."""


class PluginBroken(PluginError):
    """A plugin cannot be loaded."""

    def __init__(self, name: str, error: BaseException) -> None:
        super().__init__(
            f"the plugin {name!r} cannot be loaded ({type(error).__name__}: {error}). Mend it, uninstall "
            "it, or correct --app."
        )
        self.name = name


class UpcasterTwice(PluginError):
    """A type's upcaster from a version is declared in the class, and another one in its module."""

    def __init__(self, tag: str, version: int, kind: str) -> None:
        super().__init__(
            f"{tag!r} has two upcasters from version {version}, one in {kind}.upcasters and one in "
            "UPCASTERS: leave out the latter"
        )


class NameTaken(PluginError):
    """Two projections or processors (both are groups), or two event types, have one name."""

    def __init__(self, what: str, name: str, one: type, other: type) -> None:
        first, second = (f"{kind.__module__}.{kind.__qualname__}" for kind in (one, other))
        super().__init__(
            f"two {what} are named {name!r}: {first} and {second}. Rename one, or uninstall its package."
        )
        self.name = name


class Installed(msgspec.Struct, frozen=True):
    """Everything there is. projections and processors: by name, ready to work."""

    events: tuple[type[Event], ...]
    projections: dict[str, Projection[Any]]
    processors: dict[str, Worker] = {}

    def codec(self) -> Codec:
        """Encodes and decodes every installed event type."""
        return Codec(self.events)

    def projection(self, name: str) -> Projection[Any]:
        """Raises ProjectionUnknown naming what there is."""
        if name not in self.projections:
            raise ProjectionUnknown(name, list(self.projections))
        return self.projections[name]

    def chosen(self, names: Iterable[str]) -> list[Projection[Any]]:
        """The named ones, or all."""
        return [self.projection(name) for name in names] or list(self.projections.values())


Group = Projection[Any] | Worker  # what has a name of its own, which is its consumer group's


def find_plugins(apps: Iterable[str] = ()) -> Installed:
    """All entry points and --app modules. Raises PluginBroken, and NameTaken when two share a name."""
    events: dict[str, type[Event]] = {str(kind.__struct_config__.tag): kind for kind in BUILT_IN}
    groups: dict[str, Group] = {}
    upcasters: dict[str, dict[tuple[str, int], Upcaster]] = {}
    for plugin, module in _modules(apps):
        upcasters[plugin] = getattr(module, "UPCASTERS", {})
        for kind in [value for value in vars(module).values() if isinstance(value, type)]:
            if issubclass(kind, Event) and kind.__struct_config__.tag:
                _take_event(events, kind)
            elif issubclass(kind, Projection | Worker) and hasattr(kind, "name"):
                _take_group(groups, plugin, kind)
    for plugin, declared in upcasters.items():
        _give_upcasters(plugin, declared, events)
    projections = {name: group for name, group in groups.items() if isinstance(group, Projection)}
    processors = {name: group for name, group in groups.items() if isinstance(group, Worker)}
    return Installed(tuple(events.values()), projections, processors)


def _give_upcasters(
    plugin: str, upcasters: dict[tuple[str, int], Upcaster], events: dict[str, type[Event]]
) -> None:
    """A module's UPCASTERS to the event types they name. Raises PluginBroken."""
    for (tag, version), upcaster in upcasters.items():
        kind = events.get(tag)
        if kind is None or version >= kind.schema_version:
            continue
        if kind.upcasters.get(version, upcaster) is not upcaster:
            raise PluginBroken(plugin, UpcasterTwice(tag, version, kind.__name__))
        kind.upcasters = {**kind.upcasters, version: upcaster}


def _take_event(events: dict[str, type[Event]], kind: type[Event]) -> None:
    tag = str(kind.__struct_config__.tag)
    if events.setdefault(tag, kind) is not kind:
        raise NameTaken("event types", tag, events[tag], kind)


def _take_group(groups: dict[str, Group], plugin: str, kind: type[Group]) -> None:
    held = groups.get(kind.name)
    if held is None:
        groups[kind.name] = _made(plugin, kind)
    elif type(held) is not kind:
        is_processor = isinstance(held, Worker) or issubclass(kind, Worker)
        raise NameTaken("groups" if is_processor else "projections", kind.name, type(held), kind)


def _modules(apps: Iterable[str]) -> Iterable[tuple[str, ModuleType]]:
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        try:
            yield point.name, point.load()
        except (Exception, SystemExit) as error:
            raise PluginBroken(point.name, error) from error
    for app in apps:
        yield app, app_module(app)


def app_module(app: str) -> ModuleType:
    """The module that --app names; the current folder's come first. Raises PluginBroken."""
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        return importlib.import_module(app)
    except (Exception, SystemExit) as error:
        raise PluginBroken(app, error) from error


def _made(plugin: str, kind: type[Group]) -> Group:
    try:
        group = kind()
        group.check()
    except ValidationError:  # of its settings: the environment is to be mended, not the plugin
        raise
    except Exception as error:
        raise PluginBroken(f"{plugin}: {kind.__name__}", error) from error
    return group
