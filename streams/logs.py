"""
Loggers that load structlog when something is logged.

structlog takes rich and pygments with it (for tracebacks in colour), a sixth of what a verb needs to start;
and a verb that answers has nothing to log.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
