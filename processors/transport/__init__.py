"""
The Faust transport for Redis Streams, and batches over Redis and Kafka alike. All that is Faust's is in here.

    faust.App(.., broker="redis://..")     a stranger's app, unchanged, by the entry points of the group
                                           faust.transports
    batch_topic, batches, events           opted in: a batch of one partition's entries is one message, the
                                           measured fast way
    broker="kafka+batch://.."              the same batches over the stock Kafka driver

    names, entries      a topic is a stream, a message an entry: keys, values, headers; our own events are
                        legible too
    catalog             the topics and their partitions
    coordinator, rebalance    leases (streams/leases.py) -> what is ours -> the app hears of it
    lane, reader, consumer, queues, seeking     positions -> entries -> agents -> what is done ->
                                                acknowledge.lua
    producer            topic.send -> send.lua, each message once
    refusals            tables, joins, transactions and ask: a sentence at definition or at start

Promise: an entry is handed to an agent at least once and in order, whoever dies; after a graceful hand-over,
once. What Faust believes (acks, generations, assignments) only saves work: reading goes by position, an
acknowledgement carries the lease's epoch, and projections have cursors of their own. Needs faust-streaming
0.15.3 to 0.15.x: internals are used, each named where it is.

Decision (2026-11): reading is XRANGE after our position, and the server's group only follows (XGROUP SETID
with each acknowledgement), so that its tools show place and lag. Refused: XREADGROUP and XACK, which cost the
server 1.1 to 1.5 us an entry instead of 0.21 (Valkey 9.1, batches of 1,000), and lose entries for good when a
group is set forward while a worker runs, as the next acknowledgement moves the cursor over the gap. With that
XGROUP DESTROY, SETID and DELCONSUMER cost nothing at any time. A pending list is not shown.
Decision (2026-11): offsets are the numbers of the entries in the partition, so a commit is legible and the
same in every worker.
Refused: the entry ID as an integer, as Faust's commits materialise every missing integer between two.
Decision (2026-11): the first assignment goes through Faust's own rebalance; later ones change only what they
concern. Faust's way stops all streams, empties all queues and waits for every handler before anything moves;
with ours the longest wait of any event while a member joined and left was 0.17 to 0.28 s (lease 3 s, an event
every 2 ms), however busy handlers of other partitions are. The generation stays 1 therefore.
Decision (2026-11): shares are counted per topic, so that every topic is spread over all workers.
Decision (2026-11): the cursor is the hash acked:<app id>, not cursor:<group>: a projection may bear the app's
name. Faust apps hold no producer back (streams/pressure.py counts projections alone), as on Kafka.
Measured (2 busy cores, Valkey 9.1), CPU of the process: single events 30 us each, 39 with str keys and
Records; topic.send 47 to 58 us, of which 7 are this producer's; batches 1.6 us an event before decoding.
"""

from aurastream.processors.host import NotOffered, RawBatch, batch_topic, batches
from aurastream.processors.transport.unrolled import events

__all__ = ["NotOffered", "RawBatch", "batch_topic", "batches", "events"]
