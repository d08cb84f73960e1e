"""
The tree of causes: which event led to which. Pure.

    rows in log order -> each under the event its causation_id names -> trees, from first cause to last effect

Always true: every row is in exactly one tree, once. A cause that is not among the rows, one that would close
a circle, and one that is deeper than DEPTH_MAX make their effect a root, with a note that says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from aurastream.processors.history.trails import TrailRow

DEPTH_MAX = 200  # of a tree: what nests deeper, no JSON reader takes


class Node(msgspec.Struct):
    """An event and what followed from it, in log order. note: why it is where it is."""

    row: TrailRow
    effects: list[Node] = []
    note: str = ""

    def plain(self) -> dict[str, Any]:
        """For JSON, nested."""
        whole = {"event": self.row.plain(), "effects": [effect.plain() for effect in self.effects]}
        return {**whole, "note": self.note} if self.note else whole


def trees(rows: list[TrailRow]) -> list[Node]:
    """The rows (in log order) as trees. The same event ID in two streams is one cause: the first."""
    nodes = [Node(row, []) for row in rows]
    by_id: dict[str, int] = {}
    for number, node in enumerate(nodes):
        if node.row.event_id:
            by_id.setdefault(node.row.event_id, number)
    parents: list[int | None] = [None] * len(nodes)
    tops = list(range(len(nodes)))  # number -> some node nearer to its root
    for number, node in enumerate(nodes):
        cause = str(node.row.event.get("causation_id", ""))
        parent = by_id.get(cause) if cause else None
        if cause and parent is None:
            node.note = f"its cause {cause} is not here"
        elif parent is not None and _top(tops, parent) == number:
            node.note = f"its cause {cause} is one of its effects"
        elif parent is not None:
            parents[number] = tops[number] = parent
    return _grown(nodes, parents)


def _top(tops: list[int], number: int) -> int:
    """The root a node is under so far; shortens the way for the next one who asks."""
    top = number
    while tops[top] != top:
        top = tops[top]
    while tops[number] != top:
        tops[number], number = top, tops[number]
    return top


def _grown(nodes: list[Node], parents: list[int | None]) -> list[Node]:
    effects: list[list[int]] = [[] for _ in nodes]
    roots = []
    for number, parent in enumerate(parents):
        if parent is None:
            roots.append(number)
        else:
            effects[parent].append(number)
    grown, waiting = [], [(number, 0) for number in reversed(roots)]
    while waiting:
        number, depth = waiting.pop()
        if depth == 0:
            grown.append(nodes[number])
        for effect in reversed(effects[number]):
            if depth + 1 < DEPTH_MAX:
                waiting.append((effect, depth + 1))
            else:
                nodes[effect].note = f"goes on from {nodes[number].row.event_id}, {DEPTH_MAX} steps down"
                waiting.insert(0, (effect, 0))
        if depth + 1 < DEPTH_MAX:
            nodes[number].effects = [nodes[effect] for effect in effects[number]]
    return grown


def drawn(roots: list[Node]) -> Iterator[tuple[str, Node]]:
    """Every node with the lines that lead to it, from above to below."""
    waiting = [("", "", node) for node in reversed(roots)]
    while waiting:
        lead, below, node = waiting.pop()
        yield lead, node
        for index in range(len(node.effects) - 1, -1, -1):
            is_last = index == len(node.effects) - 1
            waiting.append(
                (
                    below + ("└─ " if is_last else "├─ "),
                    below + ("   " if is_last else "│  "),
                    node.effects[index],
                )
            )
