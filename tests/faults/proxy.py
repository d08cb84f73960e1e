"""
What lies between a client and a server, and misbehaves.

    Interceptor   between a client and a server, command by command: passes, drops, loses the answer, holds
                  back, doubles; and is
                  pointed at another server at a fail-over
    Link          between a primary and its replica, bytes: can be frozen and cut
"""

from __future__ import annotations

import shutil
import socket
import tempfile
import threading
from collections.abc import Callable
from typing import Any

import hiredis

PASS, DROP, LOSE, HOLD, DOUBLE, DOUBLED = "pass", "drop", "lose", "hold", "double", "doubled"
MUTE = "mute"
HELD_MAX = 1_000

Decide = Callable[[list[bytes]], str]


def connect(url: str) -> socket.socket:
    """To a unix:// or redis:// address."""
    kind, _, rest = url.partition("://")
    if kind == "unix":
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(rest)
        return connection
    host, _, port = rest.partition("/")[0].partition(":")
    return socket.create_connection((host, int(port)))


def shut(*ends: socket.socket) -> None:
    for end in ends:
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            continue  # closed already
        finally:
            end.close()


class Interceptor:
    """decide: the fate of a command, asked for each. LOSE executes it and cuts the connection; HOLD cuts the
    connection and keeps
    the command, to be delivered by ``deliver``; DOUBLE passes it and keeps a copy; DOUBLED passes it and
    gives its answer twice; MUTE neither passes it nor cuts anything."""

    def __init__(self, target: str, decide: Decide = lambda command: PASS) -> None:
        self.directory = tempfile.mkdtemp(prefix="aura-")
        self.url = f"unix://{self.directory}/p.sock"
        self.target, self.decide = target, decide
        self.held: list[bytes] = []
        self._muted: set[socket.socket] = set()
        self.is_silent = False  # accepts, and answers nothing; what was asked meanwhile is lost
        self.fates: dict[str, int] = {}
        self._open: list[socket.socket] = []
        self._doubled: set[socket.socket] = set()  # whose next answer is given twice
        self._lock = threading.Lock()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(f"{self.directory}/p.sock")
        self._listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.is_silent:
                with self._lock:
                    self._open.append(client)
                continue
            try:
                server = connect(self.target)
            except OSError:
                shut(client)  # the server is down: so is the connection
                continue
            with self._lock:
                self._open += [client, server]
            threading.Thread(target=self._requests, args=(client, server), daemon=True).start()
            threading.Thread(target=self._answers, args=(server, client), daemon=True).start()

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        reader: Any = hiredis.Reader()
        try:
            while data := client.recv(262_144):
                reader.feed(data)
                while (command := reader.gets()) is not False:
                    packed = hiredis.pack_command(tuple(command))
                    if not self._treat(command, packed, server):
                        shut(client)  # the answer to what was lost finds nobody
                        return
        except OSError:
            pass  # the other direction was cut; both ends are closed below
        shut(client, server)

    def _treat(self, command: list[bytes], packed: bytes, server: socket.socket) -> bool:
        """Whether the connection goes on."""
        if self.is_silent or server in self._muted:
            return True
        fate = self.decide(command)
        if fate != PASS:
            with self._lock:
                self.fates[fate] = self.fates.get(fate, 0) + 1
        if fate == DOUBLED:
            self._doubled.add(server)
        if fate in (PASS, LOSE, DOUBLE, DOUBLED):
            server.sendall(packed)
        if fate in (HOLD, DOUBLE):
            with self._lock:
                if len(self.held) < HELD_MAX:
                    self.held.append(packed)
        if fate in (DROP, HOLD):
            shut(server)
        return fate in (PASS, DOUBLE, DOUBLED, MUTE)

    def _answers(self, server: socket.socket, client: socket.socket) -> None:
        try:
            while data := server.recv(262_144):
                if self.is_silent or server in self._muted:
                    continue
                is_doubled = server in self._doubled  # before anybody can ask the next thing
                client.sendall(data)
                if is_doubled:
                    self._doubled.discard(server)
                    client.sendall(data)
        except OSError:
            pass  # as above
        if self.is_silent or server in self._muted:
            shut(server)  # and the client hears nothing of it
        else:
            shut(client, server)

    def deliver(self, first: int = 0) -> int:
        """Send what was held back, oldest first, on connections of its own. Returns how many ran."""
        with self._lock:
            late, self.held = self.held[first:], self.held[:first]
        for packed in late:
            connection = connect(self.target)
            connection.settimeout(10)
            connection.sendall(packed)
            reader: Any = hiredis.Reader()
            while reader.gets() is False:
                reader.feed(connection.recv(65_536))
            shut(connection)
        return len(late)

    def silence(self) -> None:
        """From now on nothing is answered, without a word: a machine that has lost its power."""
        self.is_silent = True

    def move(self, target: str) -> None:
        """After a silence: new connections reach the new target; who was connected hears nothing any more."""
        with self._lock:
            self._muted.update(self._open)
        self.target, self.is_silent = target, False

    def redirect(self, target: str) -> None:
        """Every connection is cut; new ones go to the new target."""
        self.target, self.is_silent = target, False
        with self._lock:
            shut(*self._open)
            self._open = []

    def close(self) -> None:
        shut(self._listener)
        self.redirect(self.target)
        shutil.rmtree(self.directory, ignore_errors=True)


class Link:
    """A loopback port in front of another one."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._flows = threading.Event()
        self._flows.set()
        self._open: list[socket.socket] = []
        self._is_cut = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def freeze(self) -> None:
        """Nothing passes from now on, in either direction; what had passed is there."""
        self._flows.clear()

    def thaw(self) -> None:
        self._flows.set()

    def cut(self) -> None:
        """What was held is lost, and nobody connects any more."""
        self._is_cut = True
        shut(*self._open)
        self._flows.set()

    def _accept(self) -> None:
        while True:
            try:
                replica, _ = self._listener.accept()
                if self._is_cut:
                    shut(replica)
                    continue
                primary = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                if self._listener.fileno() < 0:
                    return
                continue
            self._open += [replica, primary]
            for source, target in ((replica, primary), (primary, replica)):
                threading.Thread(target=self._pass, args=(source, target), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65_536):
                self._flows.wait()
                if self._is_cut:
                    break
                target.sendall(data)
        except OSError:
            pass  # cut
        shut(source, target)

    def close(self) -> None:
        self.cut()
        shut(self._listener)
