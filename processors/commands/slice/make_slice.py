"""
Cut the slice from the full files: every look at the broadcasts whose number leaves REST when divided by
MODULUS.

    python make_slice.py VIEWS.csv.gz VODS.csv.gz DIRECTORY

Rows, order and values are the source's own; gzip without a timestamp, so the result is the same bytes every
time.
"""

import csv
import gzip
import io
import sys
from pathlib import Path

MODULUS, REST = 20, 15


def cut(source: Path, target: Path, column: str) -> int:
    """Write the chosen rows of one file; returns how many."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    count = 0
    with gzip.open(source, "rt", encoding="utf-8", newline="") as rows:
        reader = csv.reader(rows)
        header = next(reader)
        writer.writerow(header)
        for row in reader:
            if int(row[header.index(column)]) % MODULUS == REST:
                writer.writerow(row)
                count += 1
    target.write_bytes(gzip.compress(text.getvalue().encode(), compresslevel=9, mtime=0))
    return count


if __name__ == "__main__":
    views, vods, directory = map(Path, sys.argv[1:])
    print(cut(views, directory / "chzzk_vod_views.csv.gz", "video_no"), "rows")
    print(cut(vods, directory / "chzzk_vods.csv.gz", "video_no"), "broadcasts")
