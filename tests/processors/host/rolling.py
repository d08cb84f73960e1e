"""A fleet whose hosts are of several builds: of a plug-in, and of AuraStream itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aurastream.streams import HostCard, Server, Trouble, read_members
from tests.commands import PATIENCE_S, Done, Environ, Home, Running, environment
from tests.servers import until

MAIN = "from aurastream.processors.commands.main import main; main()"
STREAM, PARTITIONS, LEASE_MS = "shop", 4, 800
RECEIPTS = "receipts.txt"


class Build:
    """A folder with the plug-in's module. aurastream: the folder of another AuraStream; None is this one."""

    def __init__(self, fleet: Fleet, name: str, source: str, aurastream: Path | None = None) -> None:
        self.fleet, self.folder, self._aurastream = fleet, fleet.folder / name, aurastream
        self.folder.mkdir()
        (self.folder / "shop.py").write_text(source)

    def run(self, *arguments: str, stdin: str = "") -> Done:
        """A verb, to its end."""
        process = self.start(arguments, stdin)
        done = Done(process.wait(), process.out, process.err)
        if isinstance(process, Foreign):
            process.forget()
        return done

    def says(self, *arguments: str, stdin: str = "") -> str:
        """What a verb prints that must say yes."""
        done = self.run(*arguments, stdin=stdin)
        assert done.code == 0, f"{self.folder.name} {arguments}: {done}"
        return done.out

    def host(self) -> BuildHost:
        """Start `aurastream run`."""
        return self.fleet.take(BuildHost(self))

    def append(self, kind: str, first: int, count: int, **fields: Any) -> None:
        """A producer of this build appends events number first, .. of ten articles."""
        ids = [f"{kind}:{number}" for number in range(first, first + count)]
        lines = [
            json.dumps(
                {
                    "type": kind,
                    "event_id": event_id,
                    "subject": f"article-{number % 10}",
                    "occurred_at": "2026-04-15T12:00:00Z",
                    **fields,
                }
            )
            for number, event_id in enumerate(ids, start=first)
        ]
        self.says("append", "--stream", STREAM, stdin="\n".join(lines))
        self.fleet.appended.update(ids)

    def start(self, arguments: tuple[str, ...], stdin: str = "") -> Running | Foreign:
        """A process of this build."""
        words = ("--app", "shop", *arguments)
        if self._aurastream is None:
            return self.fleet.home.start(*words, stdin=stdin, cwd=self.folder, env=self.fleet.environ)
        return Foreign(self._aurastream, words, self.folder, self.fleet.environ, stdin)


class Foreign:
    """A process of another AuraStream, run from its folder with the libraries that are installed here."""

    def __init__(
        self, aurastream: Path, words: tuple[str, ...], folder: Path, environ: Environ, stdin: str
    ) -> None:
        self._files = [tempfile.TemporaryFile() for _ in range(3)]  # noqa: SIM115 - read until the test ends
        self._files[0].write(stdin.encode())
        self._files[0].seek(0)
        given, out, err = self._files
        env = environment(folder.parent / "home", {**environ, "PYTHONPATH": str(aurastream)})
        command = [sys.executable, "-c", MAIN, *words]
        self._process = subprocess.Popen(command, stdin=given, stdout=out, stderr=err, env=env, cwd=folder)
        self.pid = self._process.pid

    @property
    def out(self) -> str:
        return self._text(1)

    @property
    def err(self) -> str:
        return self._text(2)

    def _text(self, number: int) -> str:
        descriptor = self._files[number].fileno()
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode()

    def wait(self) -> int:
        return self._process.wait(PATIENCE_S)

    def signal(self, number: int) -> int:
        """Send it, and wait for the end."""
        self._process.send_signal(number)
        return self.wait()

    def forget(self) -> None:
        """Kill it where it still runs."""
        self._process.kill()
        self._process.wait()
        for file in self._files:
            file.close()


class BuildHost:
    """A host's process."""

    def __init__(self, build: Build) -> None:
        self.build = build
        self.process = build.start(("run", "--web-port", "off"))

    @property
    def card(self) -> HostCard | None:
        """What it says of itself; None while it is no member."""
        cards = [member.card for member in read_members(self.build.fleet.server)]
        return next((card for card in cards if card.pid == self.process.pid), None)

    @property
    def troubles(self) -> tuple[Trouble, ...]:
        """Why lanes of its stand still."""
        card = self.card
        return () if card is None else card.troubles

    @property
    def notes(self) -> tuple[str, ...]:
        """What it does not run."""
        card = self.card
        return () if card is None else card.notes

    def log(self) -> str:
        return self.process.out + self.process.err

    def ready(self) -> BuildHost:
        """Wait until it takes lanes."""
        until(lambda: self.card is not None, f"the host to be a member\n{self.log()}")
        return self

    def stop(self) -> None:
        """SIGTERM, and a clean end."""
        assert self.process.signal(signal.SIGTERM) == 0, self.log()


class Fleet:
    """Everything on one server. appended: the IDs of all events. folder: of the builds."""

    def __init__(self, server: Server, url: str, home: Home) -> None:
        self.server, self.home, self.folder = server, home, home.directory
        self.environ: Environ = {
            "AURASTREAM_REDIS_URL": url,
            "AURASTREAM_PARTITIONS": str(PARTITIONS),
            "AURASTREAM_LEASE_MS": str(LEASE_MS),
            "RECEIPTS": str(self.folder / RECEIPTS),
        }
        self.appended: set[str] = set()
        self._hosts: list[BuildHost] = []

    def take(self, host: BuildHost) -> BuildHost:
        """End it with the test."""
        self._hosts.append(host)
        return host

    def has_read(self, group: str) -> bool:
        """Whether the group has nothing left to read."""
        return all(self._has_read(group, partition) for partition in range(PARTITIONS))

    def _has_read(self, group: str, partition: int) -> bool:
        tag, client = f"aura:{{{STREAM}.{partition}}}", self.server.client
        last = client.xrevrange(f"{tag}:log", count=1)
        at = client.hget(f"{tag}:cursor:{group}", "position")
        return not last or at == last[0][0]

    def settled(self, *groups: str) -> None:
        """Wait until the groups have read everything."""
        for group in groups:
            until(lambda group=group: self.has_read(group), f"{group} to have lag 0\n{self.logs()}")

    def counts(self, group: str) -> Counter[str]:
        """Of the cursors, added up."""
        total: Counter[str] = Counter()
        for partition in range(PARTITIONS):
            row = self.server.client.hgetall(f"aura:{{{STREAM}.{partition}}}:cursor:{group}")
            total.update(
                {name.decode(): int(row[name]) for name in row if name in (b"applied", b"dead", b"skipped")}
            )
        return total

    def handled(self) -> list[str]:
        """The events that the processor handled, sorted; twice where it was handled twice."""
        path = self.folder / RECEIPTS
        return sorted(path.read_text().split()) if path.exists() else []

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        """With the hosts' logs, where it does not come."""
        until(condition, f"{what}\n{self.logs()}")

    def logs(self) -> str:
        return "\n".join(f"--- {host.build.folder.name}\n{host.log()[-3_000:]}" for host in self._hosts)

    def close(self) -> None:
        for host in self._hosts:
            if isinstance(host.process, Foreign):
                host.process.forget()
