"""
The fault matrix of RELIABILITY.md section 6, with real servers: rows 1 to 33, 35 and 36; and of fleets, 37
to 47.

    make test                  every row in its short form (test_rows.py), about a minute
    make chaos SEED=n          every row at full length; --rows 1,2,36 and --seconds as python -m tests.faults
                               takes them

Each row is a function that provokes its fault, seeded and bounded in time, and is judged by
tests/invariants.py, which is itself tested to turn red when a gate is removed (test_invariants.py). worker.py
is the worker process; harness.py starts and ends everything.

    row     where                  further tests of the same hazard, from which the rows were not copied
    1-3,35  ownership.py           test_exactly_once: a_consumer_killed, two_consumers; test_leases: takeover,
            epochs
    4       operators.py           test_exactly_once: the_group_is_a_hint (one hazard at a time)
    5, 6    operators.py           test_exactly_once: check_names_what_was_tampered_with
    7       network.py             test_append: a_lost_reply_leaves_one_entry, no_answer_at_all
    8       network.py             test_exactly_once: a_commit_whose_reply_is_lost
    9       network.py             test_exactly_once: a_late_repeat_of_a_commit
    10, 11  network.py
    12      disk.py                test_exactly_once: a_server_killed_in_the_middle; test_append:
            a_disk_acknowledgement
    13      disk.py                needs strace and ptrace; skipped by name without
    14      disk.py
    15      bits.py                test_exactly_once: damaged_entries; test_codec:
            every_flipped_bit_of_an_entry
    16      disk.py                needs to mount a tmpfs (root); skipped by name without
    17      disk.py
    18-21   replication.py         test_exactly_once: a_batch_the_log_does_not_hold_is_a_gap; test_append:
            replica_acknowledgement
    22, 23  clusters.py            test_cluster: log_and_views_hold_on_a_cluster
    24      operators.py           test_append: scripts_forgotten
    25      content.py             test_append: out_of_memory_is_whole_or_absent
    26      operators.py           test_registry: eviction
    27, 28  content.py             test_exactly_once: a_broken_key, damaged_entries, a_projection_that_raises;
            test_codec
    29, 30  content.py             test_exactly_once: a_raw_entry_at_a_position_of_its_own
    31      rebuilds.py            test_rebuild_crash: killed_at_any_step,
            readers_see_the_old_view_or_the_new_one_whole
    32      replays.py             tests/processors/test_replay: killed in the middle, into a file, a pipe, a
            stream
    33      upgrade.py             tests/projections/test_old_events: old events on every path
    36      storm.py               tests/simulation: the same without sockets, thousands of schedules a minute
    37, 39  choices.py             tests/simulation: mixed.py
    40-43   refusals.py            tests/streams/test_refusals; 43 needs libfaketime; skipped by name without
    44-47   fleets.py              tests/processors/effects/test_ending; tests/simulation: mixed.py

Rows from 37 on are played by real hosts, `aurastream run` in processes of their own (fleet.py): several
groups, a processor whose calls are counted, and a thread that looks at all cursors and knows how long each
lane stood still.
"""

from tests.faults import bits as bits
from tests.faults import choices as choices
from tests.faults import clusters as clusters
from tests.faults import content as content
from tests.faults import disk as disk
from tests.faults import fleets as fleets
from tests.faults import network as network
from tests.faults import operators as operators
from tests.faults import ownership as ownership
from tests.faults import rebuilds as rebuilds
from tests.faults import refusals as refusals
from tests.faults import replays as replays
from tests.faults import replication as replication
from tests.faults import storm as storm
from tests.faults import upgrade as upgrade
from tests.faults.rows import ROWS, Row

__all__ = ["ROWS", "Row"]
