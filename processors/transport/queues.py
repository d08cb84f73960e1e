"""
What waits in an app's streams: taken out again when its partition goes, and whether any of it is being
handled now.

Faust's own way (flow_control.clear) empties the queues of all partitions, those that stay too.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from faust.types import TP, Message


def purge(topics: Any, tps: set[TP]) -> dict[Message, int]:
    """Take the events of these partitions out of every queue. Returns how often each message was taken out.

    topics: app.topics, the conductor.
    """
    taken: Counter[Message] = Counter()
    for channel in topics:
        queue: Any = channel.queue
        events = queue._queue
        kept = [event for event in events if event.message.tp not in tps]
        if len(kept) < len(events):
            taken.update(event.message for event in events if event.message.tp in tps)
            events.clear()
            events.extend(kept)
            queue._wakeup_next(queue._putters)  # who waits for room is only woken by a get
    return taken


def is_busy(unacked: Any, tps: set[TP], taken: dict[Message, int]) -> bool:
    """Whether an agent handles a message of these partitions: one of its copies is neither acknowledged nor
    taken out.
    """
    return any(
        message.tp in tps and not message.acked and message.refcount > taken.get(message, 0)
        for message in list(unacked)
    )
