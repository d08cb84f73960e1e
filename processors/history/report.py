"""
The report of a stream's clip observations, from the views alone: sums, top lists, categories, days.

Structure and field names are those of the data sets' expected answers. Where two observations of a clip have
the same time the first one in the log counts; so final_state and final_state_first_row_wins are the same
here. Each partition is read at one instant, so every number agrees with every other; ``positions`` of the
answer says which instant.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from datetime import datetime
from typing import Any

import msgspec

from aurastream.processors.importing.formats import find_formats
from aurastream.projections import ProjectionError, View
from aurastream.projections.built_in import Clip, Clips, Import, Imports, Pair
from aurastream.projections.engine import Positions
from aurastream.projections.past import PastView
from aurastream.streams import Stream

TOP = 20
_TABLES = ("clips", "categories", "days", "latest_views", "last_velocity", "max_velocity")
_decode_clip = msgspec.json.Decoder(Clip).decode
Rows = dict[str, Any]


class Report(msgspec.Struct, frozen=True):
    """The content, in the expected answers' structure, and the position per partition it reflects."""

    content: Rows
    positions: Positions


def report(stream: Stream, clips: Clips, imports: Stream | None) -> Report:
    """The report of one stream as of now. imports: the stream of import events: what only the importer knows.

    Raises ProjectionError when the stream's view has no observation yet.
    """
    return report_of(View(stream, clips), None if imports is None else View(imports, Imports()))


def report_of(view: View[Clip], imports: View[Import] | None) -> Report:
    """The report of what these readers say: of now, or as of a past time. An import that a past time comes
    before is no part of it, but for its rejected rows, which have no event time.

    Raises ProjectionError when the view has no observation.
    """
    read = view.tables(*_TABLES)
    states: dict[str, Clip] = {}
    tables: dict[str, list[Rows]] = {name: [] for name in _TABLES}
    for _, values in read.values():
        for name, table in zip(_TABLES, values, strict=True):
            tables[name].append(table)
        states |= {key: _decode_clip(raw) for key, raw in values[0].items()}
    if not states:
        if isinstance(view, PastView):
            raise ProjectionError(
                f"nothing of {view.stream.name!r} was observed as of {view.as_of}. Ask for a later time."
            )
        raise ProjectionError(
            f"the view clips of {view.stream.name!r} holds nothing yet. Import, then `aurastream run "
            "--until-idle`."
        )
    content = _counts(states) | _top_lists(states, tables)
    content["categories"] = _categories(tables["categories"])
    content["days"] = _days(tables["days"])
    content["final_state"] = content["final_state_first_row_wins"] = final_state(states)
    content |= _of_import(view.stream, imports, content["rows"])
    return Report(
        dict(sorted(content.items())), {number: cursor.position for number, (cursor, _) in read.items()}
    )


def final_state(states: dict[str, Clip]) -> Rows:
    """Sums over the clips and the digest of data/README.md, definition 10."""
    lines = [
        f"{key}\t{clip.views}\t{clip.observations}\t{clip.gained}\t{clip.falls}\n"
        for key, clip in sorted(states.items(), key=lambda item: item[0].encode())
    ]
    return {
        "decreasing_pairs": sum(clip.falls for clip in states.values()),
        "latest_views_sum": sum(clip.views for clip in states.values()),
        "state_digest": hashlib.sha256("".join(lines).encode()).hexdigest(),
        "subjects": len(states),
        "sum_positive_delta": sum(clip.gained for clip in states.values()),
    }


def _counts(states: dict[str, Clip]) -> Rows:
    clips = list(states.values())
    pairs = sum(clip.observations - 1 for clip in clips)
    rises, falls = sum(clip.rises for clip in clips), sum(clip.falls for clip in clips)
    observations = sum(clip.observations for clip in clips)
    ties = sum(clip.ties for clip in clips)
    rows = observations + ties + sum(clip.late for clip in clips)
    return {
        "canonical_observations": observations,
        "decreasing_pairs": falls,
        "first_observed_at": instant(min(clip.first_at for clip in clips)),
        "last_observed_at": instant(max(clip.last_at for clip in clips)),
        "pairs": pairs,
        "pairs_at_least_180_per_hour": sum(clip.pairs_180 for clip in clips),
        "pairs_at_least_60_per_hour": sum(clip.pairs_60 for clip in clips),
        "positive_pairs": rises,
        "rows": rows,
        "subjects": len(clips),
        "subjects_at_least_180_per_hour": sum(clip.pairs_180 > 0 for clip in clips),
        "subjects_at_least_60_per_hour": sum(clip.pairs_60 > 0 for clip in clips),
        "subjects_single_observation": sum(clip.observations == 1 for clip in clips),
        "sum_negative_delta": -sum(clip.lost for clip in clips),
        "sum_positive_delta": sum(clip.gained for clip in clips),
        "ties_collapsed": ties,
        "valid_rows": rows,
        "zero_pairs": pairs - rises - falls,
    }


def _top_lists(states: dict[str, Clip], tables: dict[str, list[Rows]]) -> Rows:
    def fall(ranking: str, key: str) -> float:
        """Among pairs without a rise the slowest fall is the fastest; the rankings hold 0 for all of them."""
        pair = states[key].fastest if ranking == "max_velocity" else None
        return 0.0 if pair is None else max(0.0, -pair.delta / pair.elapsed_us)

    def best(ranking: str) -> list[str]:
        scored = [
            (float(score), fall(ranking, key), key)
            for table in tables[ranking]
            for key, score in table.items()
        ]
        return [
            key for _, _, key in sorted(scored, key=lambda item: (item[0], item[1], item[2].encode()))[:TOP]
        ]

    return {
        "top20_last_velocity": [
            _velocity(key, states[key].last, fall_is_zero=True) for key in best("last_velocity")
        ],
        "top20_latest_views": [
            {"id": key, "latest_views": states[key].views, "observed_at": instant(states[key].last_at)}
            for key in best("latest_views")
        ],
        "top20_max_velocity": [
            _velocity(key, states[key].fastest, fall_is_zero=False) for key in best("max_velocity")
        ],
    }


def _velocity(key: str, pair: Pair | None, *, fall_is_zero: bool) -> Rows:
    if pair is None:
        raise ProjectionError(f"the ranking names {key!r}, whose state has no pair: run `aurastream check`.")
    seconds = (
        pair.elapsed_us // 1_000_000 if pair.elapsed_us % 1_000_000 == 0 else pair.elapsed_us / 1_000_000
    )
    delta = max(0, pair.delta) if fall_is_zero else pair.delta
    return {
        "delta": delta,
        "from": instant(pair.start),
        "id": key,
        "seconds": seconds,
        "to": instant(pair.end),
        "velocity_per_hour": delta * 3600 / seconds,
    }


def _categories(tables: list[Rows]) -> list[Rows]:
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for table in tables:
        for category, raw in table.items():
            row = msgspec.json.decode(raw)
            sums[category][0] += row["subjects"]
            sums[category][1] += row["latest_views_sum"]
    return [
        {"category": category, "latest_views_sum": views, "subjects": subjects}
        for category, (subjects, views) in sorted(sums.items(), key=lambda item: item[0].encode())
    ]


def _days(tables: list[Rows]) -> list[Rows]:
    columns = {
        "canonical_observations": "observations",
        "decreasing_pairs": "falls",
        "rows": "rows",
        "subjects": "clips",
        "sum_positive_delta": "gained",
    }
    sums: dict[str, Rows] = {}
    for table in tables:
        for name, raw in table.items():
            day, row = name.partition("|")[0], msgspec.json.decode(raw)
            held = sums.setdefault(day, {"day": day, **dict.fromkeys(columns, 0)})
            for theirs, ours in columns.items():
                held[theirs] += row[ours]
    return [dict(sorted(sums[day].items())) for day in sorted(sums)]


def _files(stream: str, imports: View[Import]) -> dict[str, Import]:
    """The imports into the stream, by the file's name."""
    states: dict[str, Import] = imports.states().rows
    prefix = f"{stream}:"
    return {name.removeprefix(prefix): state for name, state in states.items() if state.stream == stream}


def _of_import(stream: Stream, imports: View[Import] | None, observed: int) -> Rows:
    """What the imports view says of the files in this stream: name, digest, rejected rows."""
    files = {} if imports is None else _files(stream.name, imports)
    names = sorted(files)
    rejected = sum(state.rejected for state in files.values())
    forms = {state.format for state in files.values()}
    datasets = sorted(form.dataset for name, form in find_formats().items() if name in forms)
    return {
        "dataset": "+".join(datasets) or stream.name,
        "file": "+".join(names) or None,
        "file_sha256": "+".join(files[name].file_sha256 for name in names) or None,
        "rejected_rows": rejected,
        "rows": observed + rejected,
    }


def instant(at: datetime) -> str:
    """As the sources write it: 2026-04-15T04:09:49Z."""
    return at.isoformat().replace("+00:00", "Z")
