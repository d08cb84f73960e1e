"""
By what a view was folded: its definition, and the rules by which entries are taken in (intake.py).

    0123456789abcdef    a definition (name, version, events, settings), by the first rules, or by any: nothing
    was
                        read on which they differ
    0123456789abcdef.2  the same, and something was read by today's

    rules 1  a field that the type does not have is damage, and so is what some exceptions out of an upcaster
             left unread
    rules 2  unknown fields are passed over; readers wait at an event whose upcaster raises

Always true: what a view has set aside it lists (dead:<group>), whatever the rules were, and all else of its
log up to its cursor is in it. Whoever folds it again (``check``, a repair of one key) takes an entry that the
rules differ on for what the list says. A build that does not know the rules refuses the view, as any other
definition.

Decision (2026-11): the rules are a part of the fingerprint, and a view goes over to today's with the first
entry on which the two differ, in the commit that takes it in. So an upgrade needs no rebuild and stops no
lane, and a build of before may come back, or run beside, for as long as nothing was written that it would
misread; then it refuses the view. What the first rules had set aside stays listed until ``rebuild`` reads it.
Refused: a new fingerprint for everybody, which asks for a rebuild of every view; the first rules for ever, by
which an upgraded host would still set aside what a newer producer writes; today's rules without a word, by
which `check` finds a difference that no log explains; a position up to where the first rules held: which of
two builds of a plug-in has folded what lies before it, and so whether a field was known, is said by the list
alone. A view that has set something aside is no base for an entity: its log is folded. Views as of a past
time are folded by today's rules throughout, as a rebuild would fold them.
"""

from __future__ import annotations

import hashlib

import msgspec

from aurastream.streams import Cursor

RULES = 2  # what intake.py does; another number where any entry could fall into another class
_TODAY = f".{RULES}"


def fingerprint_of(definition: str) -> str:
    """Of the definition, while the rules say the same."""
    return hashlib.sha256(definition.encode()).hexdigest()[:16]


def is_same_definition(stored: str, own: str) -> bool:
    """Whether the two differ in the rules at most. stored: "" where nobody has said yet."""
    return stored == "" or stored.partition(".")[0] == own


def may_go_on(stored: str, own: str) -> bool:
    """Whether a view of the stored fingerprint is one of this definition, by rules that this build knows."""
    return stored in (own, own + _TODAY)


def start_of(cursor: Cursor, own: str, *, differs: bool = False) -> Cursor | None:
    """The cursor as the next batch goes on from it; None where it is another definition's, or of rules that
    this build does not know.

    differs: the two rules say different things of the batch, so the view goes over to today's.
    """
    if cursor.fingerprint and not may_go_on(cursor.fingerprint, own):
        return None
    fingerprint = own + _TODAY if differs else cursor.fingerprint or own
    if fingerprint == cursor.fingerprint:
        return cursor
    return msgspec.structs.replace(cursor, fingerprint=fingerprint)


def by_todays_rules(own: str) -> str:
    """For what is kept beside views and was folded by today's rules throughout: checkpoints, snapshots."""
    return own + _TODAY


def has_all(fingerprint: str, dead: int, own: str) -> bool:
    """Whether a view has all that today's rules take in of what it has read."""
    return dead == 0 and may_go_on(fingerprint, own)
