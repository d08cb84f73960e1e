"""
What is imported when somebody wants it, as what is behind it is slow to load: names of a package, and
structlog.

structlog takes rich and pygments with it (for tracebacks in colour), a sixth of what a verb needs to start;
and a verb that answers has nothing to log.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def late(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """The package's ``__getattr__`` (PEP 562). homes: name -> the module of the package that has it."""

    def named(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f"{package}.{homes[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return named


_configure: list[Callable[[], None]] = []


def configure_with(configure: Callable[[], None]) -> None:
    """What sets structlog up, called once, before the first event of this process is logged."""
    _configure[:] = [configure]


class Logger:
    """structlog's logger of a name: info, warning, error, .., each with an event and its facts."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, level: str) -> Callable[..., Any]:
        import structlog

        while _configure:
            _configure.pop()()
        method: Callable[..., Any] = getattr(structlog.get_logger(self._name), level)
        return method
