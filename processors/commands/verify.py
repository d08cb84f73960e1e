"""aurastream audit verify: is the archive what was written, and does the live log go on from it?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click
import msgspec

from aurastream.processors import as_json as print_json
from aurastream.processors import harmless, line, remark, table
from aurastream.processors.commands.common import Session, opened
from aurastream.processors.commands.options import json_option, stream_option_all
from aurastream.streams import OPERATIONS, list_streams
from aurastream.streams.archive import open_archive

if TYPE_CHECKING:  # pyarrow takes its time
    from aurastream.streams.archive import Verified


@click.command()
@stream_option_all
@json_option
@click.pass_context
def verify(context: click.Context, stream_names: tuple[str, ...], as_json: bool) -> int:
    """Check every hash of the archive, its chain, its signatures, and that the live log goes on from it.

    What was changed, dropped, exchanged or lost is named by partition and position. With
    AURASTREAM_ARCHIVE_VERIFY_KEY the newest segment must be signed by that key. Exit code 1 when anything is
    wrong.
    """
    with opened(context) as session:
        done = list(_verified(session, stream_names))
    findings = [item for result in done for item in result.findings]
    if as_json:
        checked = [_counts(result) for result in done]
        print_json({"sound": not findings, "checked": checked, "findings": findings})
    else:
        _show(done)
    return 1 if findings else 0


def _verified(session: Session, stream_names: tuple[str, ...]) -> Iterator[Verified]:
    """Each partition, as it is done."""
    from aurastream.streams.archive import audited_by, verify_key, verify_partition

    settings = session.settings
    key = verify_key(settings.archive_verify_key) if settings.archive_verify_key else None
    is_audited = OPERATIONS in list_streams(session.server)
    audited = audited_by(session.history(session.open(OPERATIONS))) if is_audited else {}
    for stream in session.streams(stream_names):
        archive = open_archive(settings, stream)
        for partition in range(stream.partitions if stream.is_log_here else 0):
            done = verify_partition(stream, partition, archive, audited, key)
            counts = f"{done.segments} segments, {len(done.findings)} findings"
            remark(f"{stream.name}/{partition}: {counts}")
            yield done


def _counts(result: Verified) -> dict[str, object]:
    return {name: value for name, value in msgspec.structs.asdict(result).items() if name != "findings"}


def _show(done: list[Verified]) -> None:
    columns = ["stream~", "partition", "segments", "archived", "live", "in both", "damaged when archived"]
    rows = [[r.stream, r.partition, r.segments, r.archived, r.live, r.both, r.damaged] for r in done]
    table("Verify", columns, rows)
    findings = [item for result in done for item in result.findings]
    for item in findings:
        place = item.position if item.until in ("", item.position) else f"{item.position} .. {item.until}"
        line(f"{item.stream}/{item.partition} {place}: {harmless(item.problem)}", "red")
    if findings:
        line(f"verify: {len(findings)} finding{'s' if len(findings) > 1 else ''}", "bold red")
        return
    read = sum(r.archived + r.live for r in done)
    line(f"verify: archive and log are what was written ({read:,} entries read)", "bold green")
