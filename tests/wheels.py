"""A wheel of a stranger's, written by hand as the format says (PyPA "Binary distribution format"), and
installed beside our environment.
"""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

from aurastream.processors.plugins import GROUP


def install(
    directory: Path, name: str, modules: Mapping[str, str], plugins: Mapping[str, str], group: str = GROUP
) -> str:
    """Build it, and let pip install it into a directory of its own; returns that, for PYTHONPATH.

    modules: file -> source. plugins: the entry points of the group, name -> module or module:value.
    """
    wheel, target = directory / f"{name}-1.0-py3-none-any.whl", directory / "site"
    points = "\n".join(f"{point} = {module}" for point, module in plugins.items())
    files = {
        **modules,
        f"{name}-1.0.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: "
        "1.0\nRequires-Dist: aurastream\n",
        f"{name}-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: "
        "py3-none-any\n",
        f"{name}-1.0.dist-info/entry_points.txt": f"[{group}]\n{points}\n",
    }
    record = f"{name}-1.0.dist-info/RECORD"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
        archive.writestr(
            record,
            "".join(f"{path},{_digest(text)},{len(text.encode())}\n" for path, text in files.items())
            + f"{record},,\n",
        )
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
    ]
    subprocess.run([*pip, "--target", str(target), str(wheel)], check=True)
    return str(target)


def _digest(text: str) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
