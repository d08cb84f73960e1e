"""
Which streams are topics: the messages of Faust apps, in logs of the same make as events'.

A topic's row in the registry says so (``is_topic``) from its creation by the transport. A row of an older
build says nothing, and its keys are looked at:

    a count of events' bytes in some partition   -> somebody appended events: a stream of events
    else the senders' places (producers)         -> only messages were sent: a topic
    neither                                      -> nothing was written yet: of events, and looked at again

No view folds a topic, no processor handles it, no question about all streams means it, unless it is named: by
a definition (``streams = ("orders",)``) or by a person (``--stream orders``).

Decision (2026-11): a mark at creation, and a rule for what was there before. Refused: to look at the
entries' fields, which costs a read for each look and says nothing of an empty topic; names with a prefix, as
a Faust app's topics are named by who wrote it, and by the other apps that share them. Measured on what landed
first: a Faust app beside `aurastream run` made every message a dead letter of every view and processor.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

import msgspec
from msgspec.structs import replace

from aurastream.streams.connection import Server
from aurastream.streams.facts import StreamFacts
from aurastream.streams.keys import STREAMS, Keys

_known: WeakKeyDictionary[Server, dict[str, bool]] = WeakKeyDictionary()


def judged(server: Server, rows: Mapping[str, StreamFacts]) -> dict[str, StreamFacts]:
    """The facts, those that say nothing of it with ``is_topic`` as their keys have it."""
    known = _known.setdefault(server, {})
    unmarked = [name for name, facts in rows.items() if facts.is_topic is None and name not in known]
    known.update(_looked_at(server, {name: rows[name].partitions for name in unmarked}) if unmarked else {})
    return {
        name: facts if facts.is_topic is not None else replace(facts, is_topic=known.get(name, False))
        for name, facts in rows.items()
    }


def _looked_at(server: Server, partitions: Mapping[str, int]) -> dict[str, bool]:
    """Of those that were written to, whether they are topics."""
    pipeline: Any = server.client.pipeline(transaction=False)
    for name, count in partitions.items():
        for keys in (Keys(name, partition) for partition in range(count)):
            pipeline.hexists(keys.meta, "bytes")
            pipeline.exists(keys.producers)
    answers = iter(pipeline.execute())
    decided = {}
    for name, count in partitions.items():
        of = [(next(answers), next(answers)) for _ in range(count)]
        if any(has_events or has_messages for has_events, has_messages in of):
            decided[name] = not any(has_events for has_events, _ in of)
    return decided


def taken_for_events(server: Server, name: str, facts: StreamFacts) -> StreamFacts:
    """The facts of a topic that events are about to be appended to: where nothing was written yet, because an
    app subscribed before anybody appended, it is recorded as a stream of events from now on.
    """
    pipeline: Any = server.client.pipeline(transaction=False)
    for keys in (Keys(name, partition) for partition in range(facts.partitions)):
        pipeline.exists(keys.log)
        pipeline.exists(keys.meta)
    if any(pipeline.execute()):
        return facts
    taken = replace(facts, is_topic=False)
    server.client.hset(STREAMS, name, msgspec.json.encode(taken))
    return taken
