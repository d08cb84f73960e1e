"""
The command `aurastream`: one verb per file in commands/.

Exit codes: 0 yes; 1 the check or the operation says no; 2 bad input or usage; 3 the server is unreachable or
unfit; 130 interrupted. What goes wrong is one line on stderr, with --json an object {"error": {"type",
"message"}}; a traceback is a bug. A reader that has seen enough (`| head`) ends the output, not the command:
its work and its exit code stay.
"""

from __future__ import annotations

import os
import re
import sys
from typing import Any
from urllib.parse import unquote

import click
import msgspec
from pydantic import ValidationError
from pydantic_settings import BaseSettings
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from aurastream.processors import NotConfigured, PluginError, ProcessorError, configure_logs, harmless
from aurastream.processors.commands.append import append
from aurastream.processors.commands.archive import archive
from aurastream.processors.commands.audit import audit
from aurastream.processors.commands.check import check
from aurastream.processors.commands.checkpoint import checkpoint
from aurastream.processors.commands.dead import dead
from aurastream.processors.commands.demo import demo
from aurastream.processors.commands.erase import erase
from aurastream.processors.commands.groups import groups
from aurastream.processors.commands.imports import import_
from aurastream.processors.commands.rebuild import rebuild
from aurastream.processors.commands.replay import replay_
from aurastream.processors.commands.report import report
from aurastream.processors.commands.rollback import rollback
from aurastream.processors.commands.run import run
from aurastream.processors.commands.schema import schema
from aurastream.processors.commands.serve import serve_redis
from aurastream.processors.commands.status import status
from aurastream.processors.commands.trim import trim
from aurastream.processors.commands.view import view
from aurastream.processors.commands.why import why
from aurastream.processors.importing.formats import FormatError
from aurastream.projections import ProjectionError, ProjectionUnknown
from aurastream.streams import (
    EmbeddedServerError,
    InvalidEvent,
    PartitionMismatch,
    ServerUnfit,
    StreamError,
    StreamUnknown,
    UnknownOutcome,
)
from aurastream.streams.schema import BaselineUnfit

NO, BAD_INPUT, NO_SERVER, INTERRUPTED = 1, 2, 3, 130
BAD_INPUTS = (
    click.ClickException,
    FormatError,
    InvalidEvent,
    ValidationError,
    StreamUnknown,
    PartitionMismatch,
    ProjectionUnknown,
    NotConfigured,
    PluginError,
    BaselineUnfit,
    OSError,
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--app",
    "apps",
    multiple=True,
    metavar="MODULE",
    help="Also take event types and projections from this module.",
)
@click.version_option(package_name="aurastream")
@click.pass_context
def cli(context: click.Context, apps: tuple[str, ...]) -> None:
    """Event-sourced views of clips and videos: append events, read numbers that count each event once."""
    context.obj = apps


VERBS: tuple[click.Command, ...] = (
    demo,
    serve_redis,
    append,
    import_,
    run,
    view,
    report,
    why,
    audit,
    replay_,
    status,
    check,
    rebuild,
    rollback,
    archive,
    checkpoint,
    trim,
    erase,
    schema,
    dead,
    groups,
)
for command in VERBS:
    cli.add_command(command)


def main() -> None:
    """The console script."""
    configure_logs()
    try:
        code = cli.main(prog_name="aurastream", standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(BAD_INPUT)
    except (
        click.ClickException,
        RedisError,
        StreamError,
        ProjectionError,
        ProcessorError,
        FormatError,
        ValidationError,
        OSError,
    ) as error:
        _tell(error)
        sys.exit(_code(error))
    sys.exit(code if isinstance(code, int) else 0)


def _code(error: BaseException) -> int:
    if isinstance(
        error, (ServerUnfit, EmbeddedServerError, UnknownOutcome, RedisError, ConnectionError, TimeoutError)
    ):
        return NO_SERVER
    if isinstance(error, BAD_INPUTS) or type(error) is StreamError:
        return BAD_INPUT
    return NO


def _tell(error: BaseException) -> None:
    message = harmless(" ".join(_without_secrets(_sentence(error)).split()))
    if "--json" in sys.argv:
        shown: dict[str, Any] = {"error": {"type": type(error).__name__, "message": message}}
        click.echo(msgspec.json.encode(shown).decode(), err=True)
    else:
        click.echo(f"aurastream: {message}", err=True)


def _sentence(error: BaseException) -> str:
    told = str(error) or type(error).__name__
    if isinstance(error, click.ClickException):
        told = error.format_message()
        if isinstance(error, click.UsageError) and error.ctx is not None:
            told = f"{told.removesuffix('.')}. See `{error.ctx.command_path} --help`."
    elif isinstance(error, ValidationError):
        prefix = {
            kind.__name__: str(kind.model_config.get("env_prefix")) for kind in BaseSettings.__subclasses__()
        }.get(error.title, "")
        wrong = [
            f"{prefix}{'.'.join(map(str, item['loc']))}".upper() + f": {item['msg']}"
            for item in error.errors(include_input=False)
        ]
        told = f"the settings cannot be used: {'; '.join(wrong)}. Correct the environment."
    elif isinstance(error, (RedisConnectionError, RedisTimeoutError, ConnectionError, TimeoutError)):
        told = f"the connection to the server was lost ({told}). What was acknowledged is kept; repeat the command."
    elif isinstance(error, RedisError):
        told = f"the server refused: {told}. Nothing of that request was written; see its log and `aurastream status`."
    elif isinstance(error, OSError):
        told = f"{error.filename or 'the output'} cannot be used ({error.strerror or told}). Name another place, or mend that one."
    return " ".join([told, *getattr(error, "__notes__", [])])


def _without_secrets(text: str) -> str:
    """The text without the password of AURASTREAM_REDIS_URL, wherever a library put it."""
    url = os.environ.get("AURASTREAM_REDIS_URL", "")
    before, at, _ = url.partition("://")[2].rpartition("@")
    secrets = [before.partition(":")[2]] if at else []
    secrets += re.findall(r"[?&]password=([^&#]+)", url)
    spelled = {form for secret in secrets for form in (secret, unquote(secret), *re.split("[/?#]", secret))}
    for secret in sorted(
        spelled - {""}, key=len, reverse=True
    ):  # pieces too: an unquoted / in it ends the host for a parser
        text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(secret)}(?![A-Za-z0-9])", "***", text)
    return text
