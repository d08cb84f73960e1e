"""
By what a view was folded: its definition, and the rules by which entries are taken in (intake.py).

    0123456789abcdef      a definition (name, version, events, settings), by the first rules
    0123456789abcdef.2    the same by today's
    0123456789abcdef.1-2  today's since the position ``closed_to`` of the cursor, the first before

    rules 1  a field that the type does not have is damage, and so is what some exceptions out of an upcaster
             left unread
    rules 2  unknown fields are passed over; readers wait at an event whose upcaster raises

Always true: view == fold(log[.. cursor]) by the rules that its fingerprint names, and whoever folds it again
(``check``) obeys them. A build that does not know the rules refuses the view, as any other definition.

Decision (2026-11): the rules are a part of the fingerprint, and a view of the first rules goes over to
today's where it stands: at once where nothing of it was set aside as damaged, as the two rules then say the
same of all that it has read; else from its cursor on, which the cursor keeps in ``closed_to``. So an upgrade
needs no rebuild and stops no lane, and what is appended from now on is read by today's rules; what the first
ones set aside stays listed until ``rebuild`` reads it. Refused: a new fingerprint for everybody, which asks
for a rebuild of every view; the first rules for ever, by which an upgraded host would still set aside what a
newer producer writes; today's rules without a word, by which `check` finds a difference that no log explains.
A view of both rules is no base for entities or repairs of one key: they fold the log, or refuse. Views as of
a past time are folded by today's rules throughout, as a rebuild would fold them.
"""

from __future__ import annotations

import hashlib

import msgspec

from aurastream.streams import Cursor

RULES = 2  # what intake.py does; another number where any entry could fall into another class
_BOTH = ".1-2"


def fingerprint_of(definition: str) -> str:
    """Of the definition, by today's rules."""
    return f"{hashlib.sha256(definition.encode()).hexdigest()[:16]}.{RULES}"


def is_same_definition(stored: str, own: str) -> bool:
    """Whether the two differ in the rules at most. stored: "" where nobody has said yet."""
    return stored == "" or stored.partition(".")[0] == own.partition(".")[0]


def may_go_on(stored: str, own: str) -> bool:
    """Whether a view of the stored fingerprint is one of this definition, by rules that this build knows."""
    definition, _, rules = stored.partition(".")
    known = rules in ("", "1-2") or (rules.isdecimal() and int(rules) <= RULES)
    return known and definition == own.partition(".")[0]


def adopted(cursor: Cursor, own: str, *, is_of_any_type: bool = False) -> Cursor | None:
    """The cursor as this build goes on from it; None where it is another definition's, or of rules that this
    build does not know.

    is_of_any_type: the view folds envelopes, of which both rules say the same.
    """
    definition = own.partition(".")[0]
    if cursor.fingerprint in (own, definition + _BOTH):
        return cursor
    if cursor.fingerprint not in ("", definition):
        return None
    if cursor.fingerprint == "" or cursor.dead == 0 or is_of_any_type:
        return msgspec.structs.replace(cursor, fingerprint=own)
    return msgspec.structs.replace(cursor, fingerprint=definition + _BOTH, closed_to=cursor.position)
