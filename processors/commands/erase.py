"""aurastream erase: make a creator's personal fields unreadable, everywhere and for good."""

from __future__ import annotations

import sys

import click

from aurastream.processors import as_json as print_json
from aurastream.processors import harmless, line
from aurastream.processors.commands.common import opened
from aurastream.processors.commands.options import Words, json_option
from aurastream.streams import operator
from aurastream.streams.keyring import KEY_AGE_S

FILES = {"aof": "append-only file", "rdb": "snapshot"}


@click.command()
@click.argument("creator")
@click.option(
    "--why",
    required=True,
    type=Words(),
    metavar="TEXT",
    help="For the audit trail; without the creator's name, for it stays.",
)
@click.option("--yes", is_flag=True, help="Do not ask first.")
@json_option
@click.pass_context
def erase(context: click.Context, creator: str, why: str, yes: bool, as_json: bool) -> None:
    """Drop the key of CREATOR, the platform's id as its events had it when they were appended.

    All that was sealed with the key (title and channel of its clips, what handlers said of them) then reads
    as nothing: in the log, the views, dead letters, the archive. Nothing is rewritten, so checks, rebuilds
    and the archive's chain of hashes go on as before. The fact is an event of the stream "operations", under
    the pseudonym that the creator's events carry.

    Stop what appends the creator's events first: new ones get a new key. Running processes forget the old one
    within 5 seconds. The server is asked to rewrite its append-only file and its snapshot. Replicas keep
    files of their own: have them rewritten too. A backup from before can be read until it is deleted; without
    AURASTREAM_MASTER_KEY by whoever has it.

    Not covered: what was appended without a creator, subjects and event IDs, files you imported, and what
    left for elsewhere.
    Exit code 1 when there is no such key: nothing was sealed for CREATOR, or it is erased already.
    """
    if not yes:
        _ask(creator, as_json)
    from aurastream.streams.personal import erase as erase_creator
    from aurastream.streams.personal import forget_on_disk

    with opened(context) as session:
        event, settled = erase_creator(session.operations(), creator, why=why, who=operator())
        files = forget_on_disk(session.server)
    if as_json:
        earlier = [item.subject for item in settled]
        print_json(
            {"pseudonym": event.subject, "event_id": event.event_id, "rewriting": files, "settled": earlier}
        )
        return
    within = f"running processes forget it within {KEY_AGE_S:.0f} s"
    line(f"erased: what {event.subject} stood for cannot be read any more; {within}")
    for item in settled:
        line(f"settled: the erasure of {item.subject}, which was interrupted, is in the audit trail now")
    for name, is_rewritten in files.items():
        line(_of_file(FILES[name], is_rewritten))


def _ask(creator: str, as_json: bool) -> None:
    if as_json or not sys.stdin.isatty():
        raise click.UsageError("an erasure cannot be taken back, and nobody can be asked here; add --yes")
    click.confirm(f"Erase the personal fields of {harmless(creator)!r} for good?", abort=True, err=True)


def _of_file(file: str, is_rewritten: bool | None) -> str:
    if is_rewritten is None:
        return f"{file}: the server keeps none"
    if is_rewritten:
        return f"{file}: the server writes it anew without the key"
    return f"{file}: the server may not be asked to write it anew. Have that done, or the key stays in it."
