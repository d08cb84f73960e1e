"""
The command `aurastream`: one verb per file in commands/, imported when it is named.

Exit codes: 0 yes; 1 the check or the operation says no; 2 bad input or usage; 3 the server is unreachable or
unfit; 130 interrupted. What goes wrong is one line on stderr, with --json an object {"error": {"type",
"message"}}; a traceback is a bug. A reader that has seen enough (`| head`) ends the output, not the command:
its work and its exit code stay.
"""

from __future__ import annotations

import sys
from importlib import import_module

import click

from aurastream.processors import configure_logs

BAD_INPUT, INTERRUPTED = 2, 130

VERBS = {  # -> where its command is, in commands/
    "demo": "demo.demo",
    "serve-redis": "serve.serve_redis",
    "append": "append.append",
    "import": "imports.import_",
    "run": "run.run",
    "view": "view.view",
    "report": "report.report",
    "why": "why.why",
    "audit": "audit.audit",
    "replay": "replay.replay_",
    "status": "status.status",
    "check": "check.check",
    "rebuild": "rebuild.rebuild",
    "rollback": "rollback.rollback",
    "archive": "archive.archive",
    "checkpoint": "checkpoint.checkpoint",
    "trim": "trim.trim",
    "erase": "erase.erase",
    "schema": "schema.schema",
    "dead": "dead.dead",
    "groups": "groups.groups",
}


class Verbs(click.Group):
    """A group that imports a verb when it is named, and all of them for the list of --help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names, in order."""
        return sorted(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb; None where there is none of that name."""
        return verb(cmd_name) if cmd_name in VERBS else None


def verb(name: str) -> click.Command:
    """The command of a verb, imported now."""
    module, _, command = VERBS[name].partition(".")
    made: click.Command = getattr(import_module(f"aurastream.processors.commands.{module}"), command)
    return made


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
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
    except Exception as error:
        sys.exit(_refused(error))
    sys.exit(code if isinstance(code, int) else 0)


def _refused(error: Exception) -> int:
    """The exit code of what was refused, once the sentence is said; a bug is raised on."""
    from aurastream.processors.commands.refusals import code_of, say

    code = code_of(error)
    if code is None:
        raise error
    say(error)
    return code
