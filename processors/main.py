"""
The command `aurastream`: one verb per file in commands/.

Exit codes: 0 yes; 1 the check or the operation says no; 2 bad input or usage; 3 the server is unreachable or unfit; 130 interrupted.
What goes wrong is a sentence on stderr, with --json an object {"error": {"type", "message"}}; never a traceback.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

import click
import msgspec
import structlog
from pydantic import ValidationError
from redis.exceptions import RedisError

from aurastream.processors.commands.append import append
from aurastream.processors.commands.audit import audit
from aurastream.processors.commands.check import check
from aurastream.processors.commands.demo import demo
from aurastream.processors.commands.imports import import_
from aurastream.processors.commands.report import report
from aurastream.processors.commands.run import run
from aurastream.processors.commands.serve import serve_redis
from aurastream.processors.commands.status import status
from aurastream.processors.commands.view import view
from aurastream.processors.formats import FormatError
from aurastream.projections import ProjectionError
from aurastream.streams import InvalidEvent, ServerUnfit, StreamError, UnknownOutcome
from aurastream.streams.connection import LOST
from aurastream.streams.embedded import EmbeddedServerError

NO, BAD_INPUT, NO_SERVER, INTERRUPTED = 1, 2, 3, 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--app", "apps", multiple=True, metavar="MODULE", help="Also take event types and projections from this module.")
@click.version_option(package_name="aurastream")
@click.pass_context
def cli(context: click.Context, apps: tuple[str, ...]) -> None:
    """Event-sourced views of clips and videos: append events, read numbers that count each event once."""
    context.obj = apps


for command in (demo, serve_redis, append, import_, run, view, report, audit, status, check):
    cli.add_command(command)


def main() -> None:
    """The console script."""
    _configure_logs()
    try:
        code = cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(BAD_INPUT)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # the reader has seen enough, as in `aurastream audit .. | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except (*LOST, RedisError, StreamError, ProjectionError, FormatError, ValidationError) as error:
        _tell(error)
        sys.exit(_code(error))
    sys.exit(code if isinstance(code, int) else 0)


def _code(error: BaseException) -> int:
    if isinstance(error, (ServerUnfit, EmbeddedServerError, UnknownOutcome, RedisError, *LOST)):
        return NO_SERVER
    if isinstance(error, FormatError | InvalidEvent | ValidationError):
        return BAD_INPUT
    return NO


def _tell(error: BaseException) -> None:
    message = _sentence(error)
    if "--json" in sys.argv:
        shown: dict[str, Any] = {"error": {"type": type(error).__name__, "message": message}}
        click.echo(msgspec.json.encode(shown).decode(), err=True)
    else:
        click.echo(f"aurastream: {message}", err=True)


def _sentence(error: BaseException) -> str:
    if isinstance(error, ValidationError):
        wrong = [f"{error.title} {'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors(include_input=False)]
        return "the settings cannot be used: " + "; ".join(wrong) + ". Correct the AURASTREAM_ variables."
    told = str(error) or type(error).__name__
    if isinstance(error, RedisError) and not isinstance(error, LOST):
        told = f"the server refused: {told}. Nothing of that request was written; see its log and `aurastream status`."
    if isinstance(error, LOST):
        told = f"the connection to the server was lost ({told}). What was acknowledged is kept; repeat the command."
    return " ".join([told, *getattr(error, "__notes__", [])])


def _configure_logs() -> None:
    """To stderr: readable on a terminal, JSON elsewhere (untrusted text cannot forge lines in JSON)."""
    renderer: Any = structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
