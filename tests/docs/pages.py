"""
The manual's pages, their blocks, and a shell that works through them.

A block of ``console`` is commands (``$``, continued by ``>``) and what they print; ``python`` and ``toml``
blocks that begin with ``# NAME`` are files of that name; any other ``python`` block is run. What is not run
says so in a comment above it, which readers do not see:

    <!-- shown: why it is not run -->

In printed output ``...`` stands for anything, and a line of it alone for any lines. A command ends with exit
code 0, unless it says ``# exit code N``. One without output below it may print what it likes.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from tests.commands import ROOT, Nursery, environment

PAGES = sorted((ROOT / "docs").rglob("*.md"))
PATIENCE_S = 60.0
# A directive of the builder's, as ```{toctree}, is none of ours.
_FENCE = re.compile(r"^```(?:(\w*)\n(.*?)|\{.*?)^```$", re.MULTILINE | re.DOTALL)
_SHOWN = re.compile(r"<!-- shown: (.+?) -->\n+\Z")
_NAMED = re.compile(r"# ([\w/.-]+\.\w+)\n")
_EXIT = re.compile(r"# exit code (\d+)$")
_PORT = "6066"  # of a host's pages; a test takes one that is free
_END = "\x1e"
_LOOP = f"""
while read -r step <&3; do . "$step"; printf '\\n{_END}%s\\n' "$?"; done
kill $(jobs -p) 2>/dev/null; wait
"""
_SHIM = """#!{python} -ISE
import json, os, signal, socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect({nursery!r})
request = json.dumps([sys.argv[1:], dict(os.environ), os.getcwd()]).encode()
socket.send_fds(connection, [b"%8d" % len(request)], [0, 1, 2])
connection.sendall(request)
pid = int(connection.recv(8, socket.MSG_WAITALL))
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, frame: os.kill(pid, number))
code = int(connection.recv(8, socket.MSG_WAITALL))
sys.exit(code if code >= 0 else 128 - code)
"""
_CURL = """#!{python} -ISE
import sys, urllib.request
try:
    sys.stdout.buffer.write(urllib.request.urlopen(sys.argv[-1], timeout=5).read())
except OSError:
    sys.exit(22)
"""
_NO_NETWORK = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}  # pip reads the latter as --no-..
# What `make setup` makes is there already: the tests run in it.
_MAKE = '#!/bin/sh\nPATH="${PATH#*:}"\nexec make -o setup "$@"\n'


class Block(msgspec.Struct, frozen=True):
    """One fenced block. line: of its fence, from 1. shown: why it is not run; "" where it is."""

    language: str
    text: str
    line: int
    shown: str

    @property
    def file(self) -> str:
        """The file that it is; "" for none."""
        named = _NAMED.match(self.text)
        return named[1] if named and self.language in {"python", "toml", "yaml"} else ""


class Step(msgspec.Struct, frozen=True):
    """One command. output: what the page prints below it, line by line. code: its exit code."""

    command: str
    output: list[str]
    code: int


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page, in its order."""
    text = page.read_text()
    return [
        Block(
            match[1],
            match[2],
            text.count("\n", 0, match.start()) + 1,
            reason[1] if (reason := _SHOWN.search(text, 0, match.start())) else "",
        )
        for match in _FENCE.finditer(text)
        if match[2] is not None
    ]


def steps(block: Block) -> list[Step]:
    """The commands of a console block, with what they print."""
    made: list[tuple[list[str], list[str]]] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            made.append(([line[2:]], []))
        elif line.startswith("> ") or line == ">":
            made[-1][0].append(line[2:])
        else:
            made[-1][1].append(line)
    return [
        Step("\n".join(command), output, int(code[1]) if (code := _EXIT.search(command[0])) else 0)
        for command, output in made
    ]


def agrees(expected: str, printed: str) -> bool:
    """Whether what was printed is what the page says; empty lines around it do not count."""
    parts = [
        ".*" if line == "..." else re.escape(line).replace(re.escape("..."), "[^\n]*?")
        for line in expected.strip("\n").splitlines()
    ]
    lines = "\n".join(line.rstrip() for line in printed.strip("\n").splitlines())
    return re.fullmatch("\n".join(parts), lines, re.DOTALL) is not None


class Shell:
    """One bash for a page, in a directory and a home of its own; the nursery forks what ``aurastream`` is."""

    def __init__(self, nursery: Nursery, directory: Path, *, programs: Path | None = None) -> None:
        """programs: those of an environment that is the page's own, and may be added to."""
        self.directory, self.port, self._steps = directory, _free_port(), 0
        tools = directory.parent / "tools"
        tools.mkdir()
        _executable(tools / "make", _MAKE)
        _executable(tools / "aurastream", _SHIM.format(python=sys.executable, nursery=nursery.path))
        if shutil.which("curl") is None:  # the gate needs no more than Python, make and gcc
            _executable(tools / "curl", _CURL.format(python=sys.executable))
        path = [tools, programs or tools, Path(sys.executable).parent, os.environ["PATH"]]
        changes = {"PATH": ":".join(map(str, path)), "HOME": str(directory.parent), **_NO_NETWORK}
        if programs is not None:
            changes["PYTHONPATH"] = str(next(programs.parent.glob("lib/*/site-packages")))
        reading, self._orders = os.pipe()
        self._errors = (directory.parent / "stderr").open("w+")
        self._process = subprocess.Popen(
            ["bash", "--noprofile", "--norc", "-c", f"exec 3<&{reading}\n{_LOOP}"],
            cwd=directory,
            env=environment(directory.parent / "home", changes),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            pass_fds=[reading],
            start_new_session=True,
        )
        os.close(reading)

    def run(self, command: str) -> tuple[int, str]:
        """Its exit code and what it printed."""
        self._steps += 1
        script = self.directory.parent / f"step-{self._steps}.sh"
        script.write_text(command.replace(_PORT, str(self.port)) + "\n")
        os.write(self._orders, f"{script}\n".encode())
        assert self._process.stdout is not None
        printed, until = b"", time.monotonic() + PATIENCE_S
        while not (end := re.search(rb"\n\x1e(\d+)\n\Z", printed)):
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, until - time.monotonic()))
            assert ready, f"{command}: no end after {PATIENCE_S:.0f} s\n{printed.decode()}\n{self.errors}"
            more = os.read(self._process.stdout.fileno(), 65_536)
            assert more, f"{command}: the shell has ended\n{self.errors}"
            printed += more
        return int(end[1]), printed[: end.start()].decode().replace(str(self.port), _PORT)

    @property
    def errors(self) -> str:
        """The end of what went to stderr."""
        self._errors.seek(0)
        return self._errors.read()[-3_000:]

    def work_through(self, page: Path) -> None:
        """Every block of the page, in its order."""
        for block in blocks(page):
            where = f"{page.relative_to(ROOT)}:{block.line}"
            if block.shown:
                continue
            if block.file:
                target = self.directory / block.file
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(block.text)
            elif block.language == "python":
                script = self.directory.parent / "block.py"
                script.write_text(block.text)
                self._check(Step(f"PYTHONPATH=.:$PYTHONPATH python {script}", [], 0), where)
            else:
                for step in steps(block):
                    self._check(step, where)

    def _check(self, step: Step, where: str) -> None:
        code, printed = self.run(step.command)
        told = f"{where}: {step.command}\n{printed}\n{self.errors}"
        assert code == step.code, f"exit code {code}: {told}"
        if step.output:
            expected = "\n".join(step.output)
            assert agrees(expected, printed), f"{told}\nis not what the page prints:\n{expected}"

    def close(self) -> None:
        """End the shell and what it started."""
        os.close(self._orders)
        try:
            self._process.wait(PATIENCE_S)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._errors.close()
            assert self._process.stdout is not None
            self._process.stdout.close()


def _executable(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
