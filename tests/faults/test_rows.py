"""Every row of the fault matrix, in its short form: `make chaos` plays them at full length, this file in a
minute.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator

import pytest

from tests.faults import ROWS, Row
from tests.faults.harness import Run, Skipped

pytestmark = [pytest.mark.chaos, pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture(scope="module", autouse=True)
def nursery() -> Iterator[None]:
    yield
    Run.close_nursery()


@pytest.mark.slow
@pytest.mark.parametrize("row", [ROWS[number] for number in sorted(ROWS)], ids=lambda row: row.name)
def test_fault(row: Row) -> None:
    """The seed is printed; AURASTREAM_TEST_SEED takes it back, and so does make chaos SEED=n for the long
    form.
    """
    seed = int(os.environ.get("AURASTREAM_TEST_SEED", random.randrange(10**6)))
    began = time.monotonic()
    with Run(seed) as run:
        try:
            row.play(run)
        except Skipped as reason:
            pytest.skip(str(reason))
        finally:
            print(f"row {row.number} seed {seed}: {dict(run.counts)}")
    assert run.findings == []
    assert time.monotonic() - began < row.bound_s
