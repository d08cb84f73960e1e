"""
A thread's connections, one per node.

    wires.ask([Ask(key, command), ..]) -> grouped by the node that holds each key -> all sent, then all
    received
    a passing fault -> a pause -> where another node would: connections dropped, slots learnt anew -> what is
    not answered for good is grouped and put again, until the tries are used up

Always true: a wire's answers belong to its own questions. Whatever interrupts an exchange drops the wires it
used, or the next question would be given the answers of this one.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from redis.exceptions import BusyLoadingError, ClusterError, ResponseError

from aurastream.streams.connection import Server
from aurastream.streams.drive import Ask, Questions, Reply, Round, sound
from aurastream.streams.faults import LOST, Passing, Tries, is_passing, passing_of
from aurastream.streams.wire import Wire

ATTEMPTS_MAX = 8  # times a question is put, unless told otherwise


class Wires:
    """One thread's connections to a server or cluster, one per node.

    A question is given up once it was put attempts_max times and patience_s are over.
    """

    def __init__(self, server: Server, attempts_max: int = ATTEMPTS_MAX, patience_s: float = 0.0) -> None:
        self.server, self.attempts_max, self.patience_s = server, attempts_max, patience_s
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
        part = self._put(asks, range(len(asks)))
        if part.lost is not None:
            raise part.lost
        return [part.answers[index] for index in range(len(asks))]

    def settle(self, questions: Questions, what: str = "a question") -> None:
        """Put the questions until each is answered for good. Raises UnknownOutcome or ServerRefuses, after
        which they still say what was answered.
        """
        tries = Tries(what, self.attempts_max, self.patience_s)
        fault = questions.take(self._put(questions.asks, questions.left))
        while fault is not None:
            time.sleep(tries.pause_s(fault, is_unsure=bool(questions.unsure)))
            fault = self._again(questions, fault)

    def answers(self, asks: Sequence[Ask], what: str = "a question") -> list[Reply]:
        """One answer for each, put again after a passing fault. Raises UnknownOutcome, ServerRefuses."""
        questions = Questions(asks)
        self.settle(questions, what)
        return questions.answers

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

    def _again(self, questions: Questions, fault: Exception) -> Exception | None:
        """What is left, after whatever the fault asks for. Returns the next fault."""
        if passing_of(fault) is not Passing.REFUSED:
            try:
                self.renew()
            except LOST as error:
                return error
        return questions.take(self._put(questions.asks, questions.left))

    def _put(self, asks: Sequence[Ask], indexes: Sequence[int]) -> Round:
        """These of the questions, once."""
        by_wire: dict[Wire, list[int]] = {}
        part = Round(set(), {}, None)
        try:
            for index in indexes:
                try:
                    by_wire.setdefault(self.of(asks[index].key), []).append(index)
                except (*LOST, ClusterError, ResponseError) as error:  # of this node; the others may be well
                    if not is_passing(error):
                        raise
                    part = part._replace(lost=part.lost or error)
            for wire, own in by_wire.items():
                part = self._sent(part, wire, [asks[index] for index in own], own)
            for wire, own in by_wire.items():
                part = self._received(part, wire, own)
        except BaseException:
            self.close()
            raise
        return part

    def _sent(self, part: Round, wire: Wire, asks: list[Ask], indexes: list[int]) -> Round:
        try:
            wire.send([ask.command for ask in asks])
        except LOST as error:
            self._drop(wire)
            part = part._replace(lost=part.lost or error)
        part.sent.update(indexes)  # also where it failed half-way
        return part

    def _received(self, part: Round, wire: Wire, indexes: list[int]) -> Round:
        for index in indexes if wire.outstanding else ():
            try:
                part.answers[index] = wire.receive()
            except LOST as error:
                self._drop(wire)
                if isinstance(error, BusyLoadingError):  # one that loads runs nothing
                    part.sent.difference_update(set(indexes).difference(part.answers))
                return part._replace(lost=part.lost or error)
        return part

    def _drop(self, wire: Wire) -> None:
        """This one is lost; the others stay."""
        wire.close()
        self._wires = {node: other for node, other in self._wires.items() if other is not wire}
