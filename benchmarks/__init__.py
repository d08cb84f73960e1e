"""
The numbers: `make bench` measures the targets of DESIGN.md section 13, one command, one table, one JSON file.

    server.py    a server of our own per measurement      feed.py       the events, from a seed
    measure.py   clock and CPU around a piece of work     reference.py  the projection that the apply target
                 names
    replay.py    the bare server's limit                  plain.py      the same fold, delivered at least once
    peers.py     FastStream and a plain redis-py loop     stock.py      a stock Faust app
    fleet.py     host processes, watched from outside   report.py     the table and the file

    append.py  apply.py  delivery.py  latency.py  lifecycle.py  memory.py  scale.py  takeover.py  top.py
               hosts.py
                                                                                              one workload
                                                                                              each

Always true: every variant runs in a fresh process against a fresh server, so none inherits another's heap or
caches; making the events is outside every measurement; the same seed gives the same events. CPU is the whole
process's, user and system: the client's from getrusage, the server's from INFO.

Decision (2026-11): the bare limit replays the very bytes the product sent, written without waiting for an
answer, on a server in the state they were recorded from, and the result is compared. Refused:
redis-benchmark, which cannot send scripts with thousands of arguments that differ, and whose own client is no
part of the question.
Decision (2026-11): peers do the same work: the same events, the same fold, the same absolute writes, in the
batch size of ours. They get the fast path their documentation offers (no type conversion, a decoder of
msgspec, pipelines), and no guarantee is demanded of them that they do not give; the table says which.
"""
