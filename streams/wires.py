"""
A thread's connections, one per node.

    wires.ask([Ask(key, command), ..]) -> grouped by the node that holds each key -> all sent, then all
    received
    a passing fault -> connections dropped, slots learnt anew -> grouped and put again, at most attempts_max
    times

Always true: a wire's answers belong to its own questions. Whatever interrupts an exchange drops the wires it
used, or the next question would be given the answers of this one.
"""

from __future__ import annotations

from collections.abc import Sequence

from aurastream.streams.connection import Server
from aurastream.streams.drive import Ask, Reply, passing_among, retried, sound
from aurastream.streams.wire import Wire

ATTEMPTS_MAX = 8  # times a question is put, unless told otherwise


class Wires:
    """One thread's connections to a server or cluster, one per node."""

    def __init__(self, server: Server, attempts_max: int = ATTEMPTS_MAX) -> None:
        self.server, self.attempts_max = server, attempts_max
        self._wires: dict[str, Wire] = {}

    def of(self, key: str) -> Wire:
        """The connection to the key's node, made where there is none. Raises one of LOST."""
        node = self.server.node_of(key)
        wire = self._wires.get(node)
        if wire is None:
            wire = self._wires[node] = self.server.wire(key)
        return wire

    def exchange(self, asks: Sequence[Ask]) -> list[Reply]:
        """One answer for each, in order, all nodes at once; the server's errors are values. Raises LOST."""
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
        self.server.refresh()

    def close(self) -> None:
        """Drop the connections; answers under way are lost, and their outcome unknown."""
        for wire in self._wires.values():
            wire.close()
        self._wires.clear()
