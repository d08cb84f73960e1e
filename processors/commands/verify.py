"""aurastream audit verify: is the archive what was written, and does the live log go on from it?"""

from __future__ import annotations

import click
import msgspec

from aurastream.processors import as_json as print_json
from aurastream.processors import harmless, line, remark, table
from aurastream.processors.commands.common import session
from aurastream.processors.commands.options import json_option, stream_option_all
from aurastream.streams import OPERATIONS, list_streams
from aurastream.streams.archive import open_archive


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
    from aurastream.streams.archive import Verified, audited_by, verify_key, verify_partition

    done: list[Verified] = []
    with session(context) as found:
        settings = found.settings
        key = verify_key(settings.archive_verify_key) if settings.archive_verify_key else None
        is_audited = OPERATIONS in list_streams(found.server)
        audited = audited_by(found.history(found.open(OPERATIONS))) if is_audited else {}
        for stream in found.streams(stream_names):
            archive = open_archive(settings, stream)
            for partition in range(stream.partitions if stream.is_log_here else 0):
                done.append(verify_partition(stream, partition, archive, audited, key))
                remark(
                    f"{stream.name}/{partition}: {done[-1].segments} segments, {len(done[-1].findings)} "
                    "findings"
                )
    findings = [item for result in done for item in result.findings]
    if as_json:
        rows = [
            {name: getattr(result, name) for name in result.__struct_fields__ if name != "findings"}
            for result in done
        ]
        print_json(
            {
                "sound": not findings,
                "checked": rows,
                "findings": [msgspec.to_builtins(item) for item in findings],
            }
        )
    else:
        _show(done)
    return 1 if findings else 0


def _show(done: list) -> None:  # type: ignore[type-arg]
    columns = ["stream~", "partition", "segments", "archived", "live", "in both", "damaged when archived"]
    rows = [[r.stream, r.partition, r.segments, r.archived, r.live, r.both, r.damaged] for r in done]
    table("Verify", columns, rows)
    findings = [item for result in done for item in result.findings]
    for item in findings:
        place = item.position if item.until in ("", item.position) else f"{item.position} .. {item.until}"
        line(f"{item.stream}/{item.partition} {place}: {harmless(item.problem)}", "red")
    if findings:
        line(f"verify: {len(findings)} finding{'s' if len(findings) > 1 else ''}", "bold red")
    else:
        line(
            f"verify: archive and log are what was written ({sum(r.archived + r.live for r in done):,} "
            "entries read)",
            "bold green",
        )
