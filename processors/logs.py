"""
Logs: structlog, to stderr; readable on a terminal, JSON elsewhere, where untrusted text cannot forge lines.

One renderer for everything in the process: our own events and, in a host, the records of Faust and its
libraries. structlog is imported when something is logged: it takes rich and pygments with it.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

from aurastream.streams import configure_with

if TYPE_CHECKING:
    from structlog.typing import Processor


def configure_logs() -> None:
    """For every process: how structlog's events are written, once there is one."""
    configure_with(_configure)


def _configure() -> None:
    import structlog

    structlog.configure(
        processors=[*_shared(), structlog.processors.format_exc_info, _renderer()],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def _shared() -> list[Processor]:
    import structlog

    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _renderer() -> Processor:
    import structlog

    return structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()


def library_logs(level: str = "WARNING") -> dict[str, Any]:
    """A logging configuration (as logging.config takes it) that renders the libraries' records as ours."""
    import structlog

    formatter = {
        "()": structlog.stdlib.ProcessorFormatter,
        "processors": [
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            _renderer(),
        ],
        "foreign_pre_chain": [*_shared(), structlog.stdlib.add_logger_name],
    }
    handler = {"class": "logging.StreamHandler", "formatter": "aurastream", "stream": "ext://sys.stderr"}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"aurastream": formatter},
        "handlers": {"stderr": handler},
        "root": {"level": level, "handlers": ["stderr"]},
    }
