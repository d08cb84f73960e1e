"""
Why a row of a view has its value: the events behind it, and what each of them changed.

    key is a subject:  trail's positions of it, then what the trail has not read yet -> folded alone, one by
                       one -> changes of its state                                          (of_subject.py)
    any other row:     the whole history of the partition, folded one by one -> the events after which the
                       row was another                                                      (of_row.py)

Always true: the steps are in the log's order up to the view's cursor (or to T), and lead from nothing to the
value named; whether the view says the same is in ``agrees``. The first way reads the key's entries and what
the trail lags behind, and so takes no longer in a longer log; the second is as long as the log (65 us an
event).
Not here: raw copies of an event that the trail has passed. No view counts them, and no index keeps them.

Decision (2026-11): the index is the trail's list of positions, which the audit needs anyway. Measured: a key
of 100 events takes 10 ms in a log of 10^4, 10^5 and 10^6 events alike; the trail costs 25 bytes of Redis, 3.4
us of the server and 9.7 us of its consumer per event. Refused: an index per projection and row, as a total is
changed by nearly every event.
"""

from __future__ import annotations

from aurastream.projections.engine import AnyProjection, Projection, ProjectionError
from aurastream.projections.past.inquiry import Inquiry
from aurastream.projections.past.of_row import OfRow
from aurastream.projections.past.of_subject import OfSubject
from aurastream.projections.past.steps import Why


def why(inquiry: Inquiry) -> Why:
    """The events behind a row. Raises ProjectionError for a table there is not, and for a log elsewhere."""
    stream, projection = inquiry.stream, inquiry.projection
    if not stream.is_log_here:
        raise ProjectionError(
            f"the log of {stream.name!r} is in Kafka: the events behind its views cannot be read from here."
        )
    return OfSubject(inquiry).answer() if has_index(projection, inquiry.table) else OfRow(inquiry).answer()


def has_index(projection: AnyProjection, table: str) -> bool:
    """Whether the trail names the events behind the table's rows: states by subject, and their scores."""
    of_states = table == projection.table or projection.declares(table).of_state() is not None
    return of_states and type(projection).key is Projection.key
