"""aurastream import: a file of view counts becomes events."""

from __future__ import annotations

import time
from pathlib import Path

import click
import msgspec

from aurastream.processors import as_json as print_json
from aurastream.processors import harmless, line, progress_bar
from aurastream.processors.commands.common import Session, opened
from aurastream.processors.commands.options import into, json_option
from aurastream.processors.importing import BATCH, Imported, ImportOptions, import_file, sha256_of
from aurastream.processors.importing.formats import OURS, Format, Metadata, find_formats, read_metadata
from aurastream.streams import IMPORTS


class FormatName(click.ParamType):
    """One of the formats there are, ours and those of installed packages."""

    name = "format"

    def convert(
        self, value: str | Format, param: click.Parameter | None, ctx: click.Context | None
    ) -> Format:
        """Its Format."""
        if isinstance(value, Format):
            return value
        formats = find_formats((ctx.find_root().obj or ()) if ctx is not None else ())
        if value not in formats:
            self.fail(f"{value!r} is not one of {', '.join(map(repr, formats))}", param, ctx)
        return formats[value]

    def get_missing_message(self, param: click.Parameter, ctx: click.Context | None) -> str:
        """Which there are."""
        apps = (ctx.find_root().obj or ()) if ctx is not None else ()
        return f"Choose from: {', '.join(find_formats(apps))}."


class ImportVerbOptions(msgspec.Struct, frozen=True):
    """The command line."""

    file: Path
    form: Format
    metadata: Path | None
    stream_name: str | None
    batch: int
    rejects: Path | None
    as_json: bool


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    required=True,
    type=FormatName(),
    metavar="NAME",
    help=f"What the file is: {', '.join(form.name for form in OURS)}, or an installed package's.",
)
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
@into(ImportVerbOptions)
def import_(context: click.Context, options: ImportVerbOptions) -> None:
    """Append a file's rows as events, each once.

    The event ID is the file's name and the data row's number, so an import that was killed goes on when it is
    repeated. Refused rows are counted, named in the rejects file with their reason, and appended as events of
    the stream "imports".
    """
    sha256_of(options.file)  # before a stream is made for it: what cannot be read leaves nothing behind
    metadata = read_metadata(options.metadata) if options.metadata else None
    with opened(context) as session:
        result, seconds = _imported(session, options, metadata)
    if options.as_json:
        print_json({**msgspec.structs.asdict(result), "seconds": round(seconds, 3)})
    else:
        tell_import(result, seconds)


def _imported(
    session: Session, options: ImportVerbOptions, metadata: dict[str, Metadata] | None
) -> tuple[Imported, float]:
    """What was done, and how long the appending took in seconds."""
    stream = session.open(options.stream_name or options.form.name, create=True)
    imports = session.open(IMPORTS, create=True)
    with progress_bar("importing") as bar:
        how = ImportOptions(metadata, options.batch, options.rejects, lambda account: bar.to(account.rows))
        started = time.perf_counter()
        result = import_file(options.file, options.form, stream, imports, how)
    return result, time.perf_counter() - started


def tell_import(result: Imported, seconds: float) -> None:
    """What an import did, in a line or two."""
    rate = result.rows / max(seconds, 1e-9)
    line(f"{harmless(result.file)} -> {result.stream}: {result.rows:,} rows, {rate:,.0f} rows/s")
    line(f"  {result.appended:,} appended, {result.duplicates:,} already there, {result.rejected:,} refused")
    if result.rejects_file:
        line(f"refused rows and why: {result.rejects_file}")
