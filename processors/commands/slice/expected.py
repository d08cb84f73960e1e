"""
The exact answers for a file of view counts, from the file alone: plain Python, exact integers, nothing of
AuraStream.

    python expected.py FILE chzzk|yt09|yt11 [AS_OF ..] > expected.json

Among rows of one subject with equal times the largest (views, category) wins; final_state_first_row_wins is
the state when the first row of the file wins instead. A pair is two neighbours of a subject's series; its
velocity is delta * 3600 / seconds.
"""

import csv
import gzip
import hashlib
import json
import re
import sys
from collections import defaultdict
from datetime import UTC, datetime
from functools import cmp_to_key
from pathlib import Path


def read(path, dataset):
    """(rows in all, rejected, [(subject, seconds since 1970, views, category), ..])."""
    opener = gzip.open if path.suffix == ".gz" else open
    rows, rejected, looks = 0, 0, []
    with opener(path, "rt", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            rows += 1
            look = parse(row, dataset)
            if look is None:
                rejected += 1
            else:
                looks.append(look)
    return rows, rejected, looks


def parse(row, dataset):
    """One look, or None for an unusable row."""
    digits = re.compile(r"[0-9]+")
    if dataset == "chzzk":
        if not digits.fullmatch(row["video_no"]) or not digits.fullmatch(row["view_count"]):
            return None
        at = datetime.fromisoformat(row["observed_at"])
        return row["video_no"], int(at.timestamp()), int(row["view_count"]), row["category"]
    text = row["date"] if dataset == "yt09" else row["trending_date"]
    form = r"(\d\d)\.(\d\d)" if dataset == "yt09" else r"(\d\d)\.(\d\d)\.(\d\d)"
    found = re.fullmatch(form, text, re.ASCII)
    if (
        not found
        or not re.fullmatch(r"[0-9A-Za-z_-]{11}", row["video_id"])
        or not digits.fullmatch(row["views"])
    ):
        return None
    numbers = [int(part) for part in found.groups()]
    day, month = (numbers[0], numbers[1]) if dataset == "yt09" else (numbers[1], numbers[2])
    year = 2017 if dataset == "yt09" else 2000 + numbers[0]
    return (
        row["video_id"],
        int(datetime(year, month, day, tzinfo=UTC).timestamp()),
        int(row["views"]),
        row["category_id"],
    )


def series(looks, *, first_wins=False, until=None):
    """Per subject its looks in order of time, one per time; and how many ties were dropped."""
    chosen, ties = defaultdict(dict), 0
    for subject, at, views, category in looks:
        if until is not None and at > until:
            continue
        held = chosen[subject].get(at)
        if held is not None:
            ties += 1
        if held is None or (not first_wins and (views, category.encode()) > (held[0], held[1].encode())):
            chosen[subject][at] = (views, category)
    return {
        subject: sorted((at, *look) for at, look in times.items()) for subject, times in chosen.items()
    }, ties


def final_state(canonical):
    """The state's sums and its digest."""
    lines, views_sum, gained_sum, falls_sum = [], 0, 0, 0
    for subject in sorted(canonical, key=str.encode):
        looks = canonical[subject]
        deltas = [b[1] - a[1] for a, b in zip(looks, looks[1:])]
        gained, falls = sum(d for d in deltas if d > 0), sum(d < 0 for d in deltas)
        lines.append(f"{subject}\t{looks[-1][1]}\t{len(looks)}\t{gained}\t{falls}\n")
        views_sum, gained_sum, falls_sum = views_sum + looks[-1][1], gained_sum + gained, falls_sum + falls
    return {
        "decreasing_pairs": falls_sum,
        "latest_views_sum": views_sum,
        "state_digest": hashlib.sha256("".join(lines).encode()).hexdigest(),
        "subjects": len(canonical),
        "sum_positive_delta": gained_sum,
    }


def text(at):
    """An instant as the source writes it."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def day(at):
    """Its UTC day."""
    return text(at)[:10]


def fastest(pairs):
    """The fastest pair of a subject, the earliest of equals."""
    best = pairs[0]
    for pair in pairs[1:]:
        if pair[1] * best[2] > best[1] * pair[2]:
            best = pair
    return best


def top20(pairs_by_subject, pick, *, fall_is_zero):
    """Subjects by the velocity of the pair that `pick` chooses, then by subject."""
    chosen = []
    for subject, pairs in pairs_by_subject.items():
        if pairs:
            _, delta, seconds, start, end = pick(pairs)
            chosen.append((subject, max(0, delta) if fall_is_zero else delta, seconds, start, end))

    def order(a, b):
        left, right = a[1] * b[2], b[1] * a[2]
        return (left < right) - (left > right) or (a[0].encode() > b[0].encode()) - (
            a[0].encode() < b[0].encode()
        )

    return [
        {
            "delta": d,
            "from": text(start),
            "id": s,
            "seconds": seconds,
            "to": text(end),
            "velocity_per_hour": d * 3600 / seconds,
        }
        for s, d, seconds, start, end in sorted(chosen, key=cmp_to_key(order))[:20]
    ]


def answers(path, dataset, as_of):
    """Everything."""
    rows, rejected, looks = read(path, dataset)
    canonical, ties = series(looks)
    by_subject = {
        s: [(s, b[1] - a[1], b[0] - a[0], a[0], b[0]) for a, b in zip(seen, seen[1:])]
        for s, seen in canonical.items()
    }
    pairs = [pair for subject_pairs in by_subject.values() for pair in subject_pairs]
    latest = {s: seen[-1] for s, seen in canonical.items()}
    categories = defaultdict(lambda: [0, 0])
    for _, views, category in latest.values():
        categories[category][0] += 1
        categories[category][1] += views
    at_least = {limit: [p for p in pairs if p[1] * 3600 >= limit * p[2]] for limit in (60, 180)}
    by_views = sorted(latest.items(), key=lambda item: (-item[1][1], item[0].encode()))[:20]
    return {
        "as_of": {
            t: final_state(series(looks, until=int(datetime.fromisoformat(t).timestamp()))[0]) for t in as_of
        },
        "canonical_observations": sum(len(seen) for seen in canonical.values()),
        "categories": [
            {"category": c, "latest_views_sum": views, "subjects": subjects}
            for c, (subjects, views) in sorted(categories.items(), key=lambda item: item[0].encode())
        ],
        "dataset": dataset,
        "days": days(looks, canonical, pairs),
        "decreasing_pairs": sum(p[1] < 0 for p in pairs),
        "file": path.name,
        "file_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "final_state": final_state(canonical),
        "final_state_first_row_wins": final_state(series(looks, first_wins=True)[0]),
        "first_observed_at": text(min(look[1] for look in looks)),
        "last_observed_at": text(max(look[1] for look in looks)),
        "pairs": len(pairs),
        "pairs_at_least_180_per_hour": len(at_least[180]),
        "pairs_at_least_60_per_hour": len(at_least[60]),
        "positive_pairs": sum(p[1] > 0 for p in pairs),
        "rejected_rows": rejected,
        "rows": rows,
        "subjects": len(canonical),
        "subjects_at_least_180_per_hour": len({p[0] for p in at_least[180]}),
        "subjects_at_least_60_per_hour": len({p[0] for p in at_least[60]}),
        "subjects_single_observation": sum(len(seen) == 1 for seen in canonical.values()),
        "sum_negative_delta": sum(p[1] for p in pairs if p[1] < 0),
        "sum_positive_delta": sum(p[1] for p in pairs if p[1] > 0),
        "ties_collapsed": ties,
        "top20_last_velocity": top20(by_subject, lambda found: found[-1], fall_is_zero=True),
        "top20_latest_views": [
            {"id": s, "latest_views": look[1], "observed_at": text(look[0])} for s, look in by_views
        ],
        "top20_max_velocity": top20(by_subject, fastest, fall_is_zero=False),
        "valid_rows": len(looks),
        "zero_pairs": sum(p[1] == 0 for p in pairs),
    }


def days(looks, canonical, pairs):
    """One row per UTC day."""
    found = defaultdict(lambda: {"rows": 0, "seen": [], "gained": 0, "falls": 0})
    for _, at, _, _ in looks:
        found[day(at)]["rows"] += 1
    for subject, seen in canonical.items():
        for at, _, _ in seen:
            found[day(at)]["seen"].append(subject)
    for _, delta, _, _, end in pairs:
        found[day(end)]["gained"] += max(0, delta)
        found[day(end)]["falls"] += delta < 0
    return [
        {
            "canonical_observations": len(row["seen"]),
            "day": name,
            "decreasing_pairs": row["falls"],
            "rows": row["rows"],
            "subjects": len(set(row["seen"])),
            "sum_positive_delta": row["gained"],
        }
        for name, row in sorted(found.items())
    ]


if __name__ == "__main__":
    found = answers(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
    sys.stdout.reconfigure(encoding="utf-8")
    sys.stdout.write(json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False))
