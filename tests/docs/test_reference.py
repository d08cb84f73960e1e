"""The reference pages say what the code says."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.commands import ROOT

MAKE = ROOT / "docs" / "reference" / "make.py"
PAGES = "import json, runpy, sys; print(json.dumps(runpy.run_path(sys.argv[1])['pages']()))"


@pytest.mark.process
def test_the_reference_is_current() -> None:
    """Made anew, no page changes: `make docs` was run after the code changed."""
    made = subprocess.run(
        [sys.executable, "-c", PAGES, str(MAKE)], cwd=ROOT, capture_output=True, text=True, check=True
    )

    stale = [
        name for name, text in json.loads(made.stdout).items() if (MAKE.parent / name).read_text() != text
    ]
    assert stale == [], "run `make docs` and commit docs/reference"
