"""
Decide on one entity: its state by few events, and an append that nobody else has forestalled.

Promise: ``Entities.load`` gives the state that the view's row for the key will have once its cursor has
passed the same events; what ``decide`` appends was decided on exactly the version it follows. Snapshots are a
cache: dropping all of them changes nothing but what is read.

    entities.py   load, append, decide
    look.py       what is known of an entity at one instant, and where its fold begins
    snapshots.py  states kept at a version
    errors.py     why an entity cannot be decided on
"""

from aurastream.projections.entity.entities import Decided, Entities, Loaded
from aurastream.projections.entity.errors import EntityContended, EntityIncomplete, EntityUnfit

__all__ = ["Decided", "Entities", "EntityContended", "EntityIncomplete", "EntityUnfit", "Loaded"]
