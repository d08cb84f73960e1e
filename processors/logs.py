"""
Logs: structlog, to stderr; readable on a terminal, JSON elsewhere (untrusted text cannot forge lines in
JSON).

One renderer for everything in the process: our own events and, in a worker, the records of Faust and its
libraries.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

_SHARED: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def _renderer() -> Any:
    return structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()


def configure_logs() -> None:
    """For every process: structlog's own events."""
    structlog.configure(
        processors=[*_SHARED, structlog.processors.format_exc_info, _renderer()],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def library_logs(level: str = "WARNING") -> dict[str, Any]:
    """A logging configuration (as logging.config takes it) that renders the libraries' records as ours."""
    formatter = {
        "()": structlog.stdlib.ProcessorFormatter,
        "processors": [
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            _renderer(),
        ],
        "foreign_pre_chain": [*_SHARED, structlog.stdlib.add_logger_name],
    }
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"aurastream": formatter},
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "formatter": "aurastream",
                "stream": "ext://sys.stderr",
            }
        },
        "root": {"level": level, "handlers": ["stderr"]},
    }
