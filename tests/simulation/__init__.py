"""
A deterministic simulation: the worker core against a server in memory that drops, delays and doubles by seed.

    python -m tests.simulation SEED           replay one schedule, with what happened in it
    python -m tests.simulation --minutes N    run schedules for N minutes, from --first-seed on

    memory.py   the server: the commands the product uses, over plain Python; the product's own .lua files run
                in Lua 5.1
    world.py    time, the network and the faults; one thread, one random source
    actors.py   the workers (by group, and by lease) and a producer, driven as the real drivers drive them
    schedule.py one schedule: run, heal, drain, and the invariant checker's pure functions over what the
                server holds
    mixed.py    a schedule of a mixed fleet: hosts that can run some of several groups, a server that refuses
                writes (OOM, READONLY, NOREPLICAS, MISCONF), is silent, or has its clock moved
    fleet.py    what is judged of it: no lane stands still that some living host can run, shares are even

Under test are the scripts, projections.apply.Lane, consumer.GroupLane, streams.leases.Leases, the append
command and its retry rule.
Not here: sockets, redis-py, Faust, the disk; tests/faults has those, with real servers.

Decision (2026-11): the server is a small one of our own (20 commands) with lupa's Lua 5.1, the Lua that Redis
embeds. Refused: fakeredis[lua], a server to test clients against: here the whole state must be copied at any
moment, so that a fail-over to an older copy can be played, and a script call may take no more than 0.05 ms
for thousands of schedules a minute. The truth of ours is
tests/simulation/test_memory.py: random commands and the scripts give the same answers here and on a real
server.
"""
