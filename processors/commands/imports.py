"""aurastream import: a file of view counts becomes events."""

from __future__ import annotations

import time
from pathlib import Path

import click
import msgspec

from aurastream.processors import as_json as print_json
from aurastream.processors import harmless, line, progress_bar
from aurastream.processors.commands.common import json_option, session
from aurastream.processors.importing import BATCH, Imported, import_file, sha256_of
from aurastream.processors.importing.formats import FORMATS, read_metadata
from aurastream.streams import IMPORTS


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--format", "form", required=True, type=click.Choice(list(FORMATS)), help="What the file is.")
@click.option("--metadata", type=click.Path(path_type=Path), help="Titles and publication dates (chzzk).")
@click.option("--stream", "stream_name", metavar="NAME", help="Default: the format's name.")
@click.option(
    "--batch", default=BATCH, show_default=True, type=click.IntRange(1, 100_000), help="Rows an append."
)
@click.option(
    "--rejects",
    type=click.Path(path_type=Path),
    help="Where refused rows go. Default: FILE's name.rejects.jsonl here.",
)
@json_option
@click.pass_context
def import_(
    context: click.Context,
    file: Path,
    form: str,
    metadata: Path | None,
    stream_name: str | None,
    batch: int,
    rejects: Path | None,
    as_json: bool,
) -> None:
    """Append a file's rows as events, each once.

    The event ID is the file's name and the data row's number, so an import that was killed goes on when it is
    repeated. Refused rows are counted, named in the rejects file with their reason, and appended as events of
    the stream "imports".
    """
    sha256_of(file)  # before a stream is made for it: a file that cannot be read leaves nothing behind
    known = read_metadata(metadata) if metadata else None
    with session(context) as found, progress_bar("importing") as bar:
        stream, imports = found.open(stream_name or form, create=True), found.open(IMPORTS, create=True)
        started = time.perf_counter()
        result = import_file(
            file,
            FORMATS[form],
            stream,
            imports,
            metadata=known,
            batch=batch,
            rejects_path=rejects,
            progress=lambda done: bar.to(done.rows),
        )
        seconds = time.perf_counter() - started
    if as_json:
        print_json({**msgspec.structs.asdict(result), "seconds": round(seconds, 3)})
    else:
        tell_import(result, seconds)


def tell_import(result: Imported, seconds: float) -> None:
    """What an import did, in a line or two."""
    rate = result.rows / max(seconds, 1e-9)
    line(f"{harmless(result.file)} -> {result.stream}: {result.rows:,} rows, {rate:,.0f} rows/s")
    line(f"  {result.appended:,} appended, {result.duplicates:,} already there, {result.rejected:,} refused")
    if result.rejects_file:
        line(f"refused rows and why: {result.rejects_file}")
