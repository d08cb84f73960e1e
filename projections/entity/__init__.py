from aurastream.projections.entity.entities import Decided, Entities, Loaded

__all__ = ["Decided", "Entities", "Loaded"]
