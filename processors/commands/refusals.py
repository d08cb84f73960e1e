"""What went wrong, as an exit code and a sentence for a person. Imported when something did."""

from __future__ import annotations

import os
import re
import sys
from urllib.parse import unquote

import click
import msgspec
from pydantic import ValidationError
from pydantic_settings import BaseSettings
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from aurastream.processors import NotConfigured, PluginError, ProcessorError, harmless
from aurastream.processors.importing.formats import FormatError
from aurastream.projections import ProjectionError, ProjectionUnknown
from aurastream.streams import (
    EmbeddedServerError,
    InvalidEvent,
    NotAnswered,
    PartitionMismatch,
    ServerUnfit,
    StreamError,
    StreamUnknown,
)
from aurastream.streams.schema import BaselineUnfit

NO, BAD_INPUT, NO_SERVER = 1, 2, 3
NO_SERVERS = (ServerUnfit, EmbeddedServerError, NotAnswered, RedisError, ConnectionError, TimeoutError)
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
OURS = (StreamError, ProjectionError, ProcessorError)
LOST = "the connection to the server was lost ({}). What was acknowledged is kept; repeat the command."
REFUSED = "the server refused: {}. Nothing of that request was written; see its log and `aurastream status`."


def code_of(error: Exception) -> int | None:
    """The exit code; None for what is a bug."""
    if isinstance(error, NO_SERVERS):
        return NO_SERVER
    if isinstance(error, BAD_INPUTS) or type(error) is StreamError:
        return BAD_INPUT
    return NO if isinstance(error, OURS) else None


def say(error: Exception) -> None:
    """The sentence on stderr; with --json as an object."""
    message = harmless(" ".join(_without_secrets(_sentence(error)).split()))
    if "--json" in sys.argv:
        shown = {"error": {"type": type(error).__name__, "message": message}}
        click.echo(msgspec.json.encode(shown).decode(), err=True)
    else:
        click.echo(f"aurastream: {message}", err=True)


def _sentence(error: Exception) -> str:
    message = str(error) or type(error).__name__
    if isinstance(error, click.ClickException):
        message = _of_usage(error)
    elif isinstance(error, ValidationError):
        message = _of_settings(error)
    elif isinstance(error, (RedisConnectionError, RedisTimeoutError, ConnectionError, TimeoutError)):
        message = LOST.format(message)
    elif isinstance(error, RedisError):
        message = REFUSED.format(message)
    elif isinstance(error, OSError):
        place, why = error.filename or "the output", error.strerror or message
        message = f"{place} cannot be used ({why}). Name another place, or mend that one."
    return " ".join([message, *getattr(error, "__notes__", [])])


def _of_usage(error: click.ClickException) -> str:
    message = error.format_message()
    if isinstance(error, click.UsageError) and error.ctx is not None:
        return f"{message.removesuffix('.')}. See `{error.ctx.command_path} --help`."
    return message


def _of_settings(error: ValidationError) -> str:
    prefixes = {
        kind.__name__: str(kind.model_config.get("env_prefix")) for kind in BaseSettings.__subclasses__()
    }
    prefix = prefixes.get(error.title, "")
    wrong = [
        f"{prefix}{'.'.join(map(str, item['loc']))}".upper() + f": {item['msg']}"
        for item in error.errors(include_input=False)
    ]
    return f"the settings cannot be used: {'; '.join(wrong)}. Correct the environment."


def _without_secrets(text: str) -> str:
    """The text without the password of AURASTREAM_REDIS_URL, wherever a library put it."""
    url = os.environ.get("AURASTREAM_REDIS_URL", "")
    before, at, _ = url.partition("://")[2].rpartition("@")
    secrets = [before.partition(":")[2]] if at else []
    secrets += re.findall(r"[?&]password=([^&#]+)", url)
    # pieces too: an unquoted / in it ends the host for a parser
    spelled = {form for secret in secrets for form in (secret, unquote(secret), *re.split("[/?#]", secret))}
    for secret in sorted(spelled - {""}, key=len, reverse=True):
        text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(secret)}(?![A-Za-z0-9])", "***", text)
    return text
