"""
The command `aurastream`: one verb per file in commands/, imported when it is named.

Exit codes: 0 yes; 1 the check or the operation says no; 2 bad input or usage; 3 the server is unreachable or
unfit; 130 interrupted. What goes wrong is one line on stderr, with --json an object {"error": {"type",
"message"}}; a traceback is a bug. A reader that has seen enough (`| head`) ends the output, not the command:
its work and its exit code stay.
"""

from __future__ import annotations

import sys
from difflib import get_close_matches
from importlib import import_module

import click

from aurastream.processors import configure_logs

BAD_INPUT, INTERRUPTED = 2, 130

# The verbs, in the order of a person's day: where each command is, in commands/, and what --help says of it.
_SAID = {
    "demo": ("demo.demo", "Replay real view counts and look at the views."),
    "serve-redis": ("serve.serve_redis", "Hold the embedded server of this home."),
    "append": ("append.append", "Append the events on stdin, a JSON object a line."),
    "import": ("imports.import_", "Import a file: every row becomes an event."),
    "run": ("run.run", "Be a host: fold views, run processors."),
    "view": ("view.view", "A key's state, a ranking, a table; also of a past time."),
    "report": ("report.report", "Sums, top lists, categories and days of a stream."),
    "why": ("why.why", "The events behind a value, and what each changed."),
    "audit": ("audit.audit", "The events of a subject, a story, an operator."),
    "replay": ("replay.replay_", "Events of the past again, into a pipe, file or stream."),
    "status": ("status.status", "Streams, groups, lag, memory."),
    "check": ("check.check", "Fold the log anew and compare every view."),
    "rebuild": ("rebuild.rebuild", "A view anew beside the live one, then swapped."),
    "rollback": ("rollback.rollback", "Back to the generation before."),
    "dead": ("dead.dead", "Events that a processor or a view could not use."),
    "processors": ("processors.processors", "What processors handle, and since when."),
    "groups": ("groups.groups", "Who holds producers and the trimmer back."),
    "schema": ("schema.schema", "Event types as JSON Schema; checks for changes."),
    "archive": ("archive.archive", "Closed segments of the log to Parquet."),
    "checkpoint": ("checkpoint.checkpoint", "Make questions about past times quick."),
    "trim": ("trim.trim", "Remove from the log what is archived and read."),
    "erase": ("erase.erase", "Drop the key of a creator's personal fields."),
}
VERBS = {name: place for name, (place, _) in _SAID.items()}


class Verbs(click.Group):
    """A group that imports a verb when it is named; what --help says of each stands here."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names, in order."""
        return sorted(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb; None where there is none of that name."""
        return verb(cmd_name) if cmd_name in VERBS else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """What each verb does, in a whole line."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, says) for name, (_, says) in _SAID.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, with the near name in the sentence."""
        near = get_close_matches(args[0], VERBS, 1)
        if args[0] not in VERBS and near:
            ctx.fail(f"No such command {args[0]!r}, but there is {near[0]!r}.")
        return super().resolve_command(ctx, args)


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
