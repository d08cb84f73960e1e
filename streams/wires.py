"""
Blocking connections, and a thread's pool of them, one per node.

    wires.ask([Ask(key, command), ..]) -> grouped by the node that holds each key -> all sent, then all received
    a passing fault -> connections dropped, slots learnt anew -> grouped and put again, at most attempts_max times

Always true: a wire's answers belong to its own questions. Whatever interrupts an exchange drops the wires it used,
or the next question would be given the answers of this one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from hiredis import pack_command
from redis.connection import AbstractConnection
from redis.exceptions import ResponseError

from aurastream.streams.drive import Ask, Command, Reply, sound
from aurastream.streams.passing import passing_among, retried
from aurastream.streams.script import Script

ATTEMPTS_MAX = 8  # times a question is put, unless told otherwise


class Wire:
    """One connection: commands go out together, answers come back in order.

    ``send`` writes without waiting; ``receive`` returns the next answer, an error of the server as a value (so that
    the answers behind it are not lost), and raises when the connection is lost. Not for several threads.
    """

    def __init__(self, connection: AbstractConnection) -> None:
        self._connection = connection
        self.outstanding = 0
        connection.connect()
        self.ask(*[("SCRIPT", "LOAD", script.text) for script in Script.every.values()])

    def send(self, commands: Iterable[Command]) -> None:
        """Write the commands. Raises one of LOST when the connection is gone."""
        packed = [pack_command(command) for command in commands]
        self.outstanding += len(packed)
        self._connection.send_packed_command(packed, check_health=False)

    def receive(self) -> Reply:
        """The next answer, or the server's error as a value."""
        self.outstanding -= 1
        try:
            return self._connection.read_response(disable_decoding=True)
        except ResponseError as error:
            return error

    def ask(self, *commands: Command) -> list[Reply]:
        """Send and receive all; raises the first error among the answers."""
        self.send(commands)
        return sound([self.receive() for _ in commands])

    def close(self) -> None:
        """Drop the connection; answers under way are lost, and their outcome unknown."""
        self._connection.disconnect()


class Nodes(Protocol):
    """A server or cluster: where a key is, and how to get there."""

    def node_of(self, key: str) -> str:
        """A name for the node that holds the key: keys of one name can share a wire."""

    def wire(self, key: str) -> Wire:
        """A new connection to the node that holds the key."""

    def refresh(self) -> None:
        """Learn anew which node holds which slot."""


class Wires:
    """One thread's connections to a server or cluster, one per node."""

    def __init__(self, server: Nodes, attempts_max: int = ATTEMPTS_MAX) -> None:
        self._server, self.attempts_max = server, attempts_max
        self._wires: dict[str, Wire] = {}

    def of(self, key: str) -> Wire:
        """The connection to the key's node, made where there is none. Raises one of LOST."""
        node = self._server.node_of(key)
        wire = self._wires.get(node)
        if wire is None:
            wire = self._wires[node] = self._server.wire(key)
        return wire

    def exchange(self, asks: Sequence[Ask]) -> list[Reply]:
        """One answer for each, in order, the nodes all at once. Errors of the server are values. Raises one of LOST."""
        by_wire: dict[Wire, list[int]] = {}
        for index, ask in enumerate(asks):
            by_wire.setdefault(self.of(ask.key), []).append(index)
        answers: list[Reply] = [None] * len(asks)
        try:
            for wire, indexes in by_wire.items():
                wire.send([asks[index].command for index in indexes])
            for wire, indexes in by_wire.items():
                for index in indexes:
                    answers[index] = wire.receive()
        except BaseException:
            self.close()
            raise
        return answers

    def answers(self, asks: Sequence[Ask], what: str = "a question") -> list[Reply]:
        """The same, put again after a passing fault. Raises UnknownOutcome after attempts_max."""

        def settled() -> list[Reply]:
            answers = self.exchange(asks)
            if fault := passing_among(answers):
                raise fault
            return answers

        return retried(what, self.attempts_max, settled, self.renew)

    def ask(self, asks: Sequence[Ask], what: str = "a question") -> list[Reply]:
        """The same; raises the first error of the server."""
        return sound(self.answers(asks, what))

    def renew(self) -> None:
        """Drop the connections and learn the cluster's nodes anew; the next use connects."""
        self.close()
        self._server.refresh()

    def close(self) -> None:
        """Drop the connections; answers under way are lost, and their outcome unknown."""
        for wire in self._wires.values():
            wire.close()
        self._wires.clear()
