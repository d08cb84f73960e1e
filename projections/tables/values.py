"""Fields and functions of states, made ready: run once per event and table, so in C where fields allow it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from operator import attrgetter
from typing import Any, TypeAlias

from aurastream.projections.tables.reading import State
from aurastream.projections.tables.table import ProjectionError

Score: TypeAlias = str | Callable[[State], float | None]
Value: TypeAlias = str | Callable[[State], Any]  # the name of a field of the state, or a pure function of it


def getter(value: Value | None) -> Callable[[State], Any]:
    """The value of a state; None is "" ."""
    if value is None:
        return lambda state: ""
    return attrgetter(value) if isinstance(value, str) else value


def tuple_getter(values: Sequence[Value | None]) -> Callable[[State], tuple[Any, ...]]:
    """All values of a state as one tuple; None, where there is nothing to take, is "" ."""
    names = [value for value in values if isinstance(value, str)]
    if len(names) == len(values) > 1:
        return attrgetter(*names)
    if len(names) > 1 and values == names + [None] * (len(values) - len(names)):
        get_names, rest = attrgetter(*names), ("",) * (len(values) - len(names))
        return lambda state: get_names(state) + rest
    getters = [getter(value) for value in values]
    if len(getters) == 1:
        get = getters[0]
        return lambda state: (get(state),)
    return lambda state: tuple([get(state) for get in getters])


def check_field(table: str, kind: type, value: object) -> None:
    """Raise ProjectionError where a name is none of the struct's fields or properties."""
    if not isinstance(value, str) or hasattr(kind, value.partition(".")[0]):
        return
    names = [name for name in dir(kind) if not name.startswith("_")]
    near = get_close_matches(value, names, 1)
    meant = (
        f" Did you mean {near[0]!r}?"
        if near
        else f" It has {', '.join(getattr(kind, '__struct_fields__', names))}."
    )
    raise ProjectionError(f"the table {table!r} wants {value!r}, which {kind.__name__} does not have.{meant}")
