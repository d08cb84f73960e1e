"""The benchmarks measure what they say, on sizes too small for their figures to mean anything."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from aurastream.streams import Server
from benchmarks.__main__ import main
from benchmarks.feed import observations
from benchmarks.latency import latencies_ms
from benchmarks.measure import AT_LEAST_ONCE, Plan, Report, Row, Target, Work, has_faststream, percentile
from benchmarks.report import facts_of, headline, write
from benchmarks.scale import flatness
from benchmarks.suite import WORKLOADS, run
from tests.servers import ServerProcess

pytestmark = pytest.mark.timeout(400)

TINY = Plan(
    append=2_000,
    apply=2_000,
    one_by_one=500,
    rounds=1,
    ratio_rounds=2,
    latency_s=2,
    memory=2_000,
    scale=(500, 1_000),
    scale_least=500,
    partitions_top=8,
    top=2_000,
    top_reads=5,
    hosts=24_000,
    hosts_rounds=1,
    kills=2,
    lease_ms=600,
    starts=1,
    lease_hosts=3,
    history=4_000,
    rebuild=2_000,
    rebuild_long=2_000,
    swaps=1,
)


@pytest.fixture
def one_server(valkey: str) -> Iterator[Server]:
    process = ServerProcess(valkey)
    server = Server(process.url)
    yield server
    server.close()
    process.stop()


@pytest.mark.slow
def test_every_workload_gives_its_figures_and_the_file_holds_them(tmp_path: Path, one_server: Server):
    """A workload that breaks is found here, not an hour into a run."""
    server = one_server
    path = tmp_path / "results.json"

    def measured_here(work: Work, plan: Plan) -> Report:
        server.client.flushall()
        return work(server.url, plan)

    report = run(TINY, WORKLOADS, lambda text: None, measured_here)
    write(path, facts_of(server.url, TINY, load=0.0), report)

    written = msgspec.json.decode(path.read_bytes())
    assert {row["workload"] for row in written["rows"]} == {
        "append",
        "apply",
        "archive",
        "audit",
        "delivery",
        "latency",
        "rebuild",
        "hosts",
        "scale",
    }
    assert all(row["events_per_s"] > 0 and row["client_us"] > 0 for row in written["rows"])
    assert all(row["server_us"] > 0 for row in written["rows"] if "consumer" not in row["variant"])
    assert len(written["targets"]) == 32
    assert all(target["measured"] is not None for target in written["targets"])
    assert written["seed"] == written["facts"]["plan"]["seed"] == 7
    assert {"commit", "server", "python"} <= written["facts"].keys()
    assert {"FastStream" in row["variant"] for row in written["rows"]} == (
        {True, False} if has_faststream() else {False}
    )
    assert all(row["guarantee"] == AT_LEAST_ONCE for row in written["rows"] if "redis-py" in row["variant"])


@pytest.mark.slow
def test_the_command_measures_in_a_process_and_on_a_server_of_its_own(tmp_path: Path):
    """What a person runs, with the table that a person reads."""
    path = tmp_path / "results.json"

    done = CliRunner().invoke(main, ["--quick", "--only", "top", "--json", str(path)], catch_exceptions=False)

    assert done.exit_code == 0
    assert "top 100 over 64 partitions, p99" in done.output
    assert msgspec.json.decode(path.read_bytes())["targets"][0]["measured"] > 0


def test_the_same_seed_gives_the_same_events():
    """Two runs are compared only when they did the same."""
    first, second, other = (list(islice(observations(seed, clips=50), 120)) for seed in (7, 7, 8))

    assert first == second
    assert first != other
    assert len({event.event_id for event in first}) == 120


def test_a_missed_target_says_by_how_much():
    """An upper bound is missed upwards, a lower one downwards; a hit says nothing."""
    assert Target("cpu", 4.0, "us", 5.0).missed_by == "25%"
    assert Target("rate", 100.0, "events/s", 60.0, at_least=True).missed_by == "40%"
    assert Target("cpu", 4.0, "us", 4.0).missed_by == ""
    assert not Target("cpu", 4.0, "us", None).is_met


def test_percentiles_are_values_that_were_measured():
    """Nearest rank: no figure that nobody saw."""
    values = [float(number) for number in range(1, 101)]

    assert [percentile(values, share) for share in (0.0, 0.5, 0.99, 1.0)] == [1.0, 50.0, 99.0, 100.0]
    assert percentile([3.0], 0.99) == 3.0


def test_an_event_is_visible_with_the_first_commit_at_or_past_it():
    """Commits of other partitions, and earlier ones, show nothing of it; one never committed has no
    latency.
    """
    sent = [(0, (5, 1), 1.0, 1.5), (1, (5, 0), 1.0, 1.0), (1, (9, 0), 1.0, 1.0)]
    commits = [(0, (5, 0), 1.6), (1, (5, 0), 2.0), (0, (6, 0), 3.0)]

    from_append, from_due = latencies_ms(sent, commits)

    assert from_append == [1500.0, 1000.0]
    assert from_due == [2000.0, 1000.0]


def test_the_spread_over_sizes_adds_append_and_apply():
    """Client and server, both phases: what an event costs at that size."""
    rows = [
        Row("scale", name, "", events, 1.0, us, us)
        for events, name, us in (
            (100, "append", 1.0),
            (100, "apply", 2.0),
            (1_000, "append", 1.5),
            (1_000, "apply", 2.1),
        )
    ]

    (target,) = flatness(rows)

    assert target.measured == pytest.approx(20.0)
    assert not target.is_met
    assert flatness(rows[:2]) == []


def test_the_headline_counts_targets():
    """STYLE section 9: events per second and p99."""
    targets = [
        Target("apply", 100.0, "events/s", 120.0, at_least=True),
        Target("append to visible at 1,000 events/s, p99", 10.0, "ms", 12.0),
    ]

    assert (
        headline(targets)
        == "120 events/s applied exactly once; 12.00 ms p99 from append to view; 1 of 2 targets met"
    )
    assert headline(Report([], [], []).targets) == "0 of 0 targets met"
