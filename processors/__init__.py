"""
The workers: the command line, imports and reports; the host with its lanes (host/), processors with effects
(effects/) and the Faust transports (transport/), where alone Faust is known. Imports streams and projections.

Promise: every verb has --json and an honest exit code; what is refused says what, where and what to do.

Decision (2026-11): click and rich. Refused: typer, which is click with the options read from annotations, at
the price of one more dependency.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aurastream.processors.connect import Connection, connected
from aurastream.processors.errors import NotConfigured, ProcessorError
from aurastream.processors.logs import configure_logs, library_logs
from aurastream.processors.plugins import Installed, PluginError, Worker, app_module, find_plugins
from aurastream.processors.show import (
    Bar,
    as_json,
    harmless,
    into_nothing,
    line,
    paragraph,
    progress_bar,
    remark,
    stacked,
    table,
)
from aurastream.processors.stopping import Stop, stopping_by_signal
from aurastream.processors.times import parsed_duration, parsed_time
from aurastream.streams import late

if TYPE_CHECKING:
    from aurastream.processors.fanout import Fanout, Here, WorkFailed, is_worth

# multiprocessing takes its time: who asks little does not wait for it
__getattr__ = late(__name__, dict.fromkeys(("Fanout", "Here", "WorkFailed", "is_worth"), "fanout"))

__all__ = [
    "Bar",
    "Connection",
    "Fanout",
    "Here",
    "Installed",
    "NotConfigured",
    "PluginError",
    "ProcessorError",
    "Stop",
    "WorkFailed",
    "Worker",
    "app_module",
    "as_json",
    "configure_logs",
    "connected",
    "find_plugins",
    "harmless",
    "into_nothing",
    "is_worth",
    "library_logs",
    "line",
    "paragraph",
    "parsed_duration",
    "parsed_time",
    "progress_bar",
    "remark",
    "stacked",
    "stopping_by_signal",
    "table",
]
