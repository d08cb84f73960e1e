"""
What one JSON Schema allows and another does not, as far as the schemas that msgspec makes need it.

    narrowings(old, new)
        -> (kind, path, sentence) for each way in which a value of `old` is none of `new`, or means another
        one

Always true: where there is none, every value that is valid by `old`, with the defaults of what it leaves out,
is valid by `new` and has the same ones. The reverse is not promised: of a keyword that is not known here, any
change is a narrowing, and a union's option must fit into one option of the other as a whole.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from aurastream.streams.schema.json_schema import REF, Schema

Narrowing = tuple[str, str, str]  # kind, path of the field, what is the matter

_NOTES = {
    "$id",
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "discriminator",
    "x-schema-version",
    "x-personal",
    "$defs",
}
_TEXT_SAME = {"pattern": "pattern", "format": "format", "contentEncoding": "encoding"}
_LIMITS = {
    "minimum": ("least value", 1, 0),
    "exclusiveMinimum": ("least value", 1, 1),
    "maximum": ("greatest value", -1, 0),
    "exclusiveMaximum": ("greatest value", -1, 1),
    "minLength": ("least length", 1, 0),
    "maxLength": ("greatest length", -1, 0),
    "minItems": ("least number of items", 1, 0),
    "maxItems": ("greatest number of items", -1, 0),
    "minProperties": ("least number of keys", 1, 0),
    "maxProperties": ("greatest number of keys", -1, 0),
}
_JUDGED = {
    "type",
    "enum",
    "const",
    "anyOf",
    "$ref",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "prefixItems",
    "propertyNames",
    "multipleOf",
    "uniqueItems",
    *_TEXT_SAME,
    *_LIMITS,
    *_NOTES,
}


def narrowings(old: Schema, new: Schema) -> Iterator[Narrowing]:
    """Findings, in the order of the old schema's fields. Both documents are self-contained objects."""
    yield from _Comparison(old, new).run()


class _Comparison:
    """Two self-contained schemas: what the first allows and the second does not."""

    def __init__(self, old: Schema, new: Schema) -> None:
        self._old, self._new = old, new
        # Pairs of definitions being compared: a type within itself is judged where it began.
        self._under_way: set[tuple[int, int]] = set()

    def run(self) -> Iterator[Narrowing]:
        yield from self._fits(self._old, self._new, "")

    def _fits(self, old: Schema, new: Schema, path: str) -> Iterator[Narrowing]:
        """What of `old` is not in `new`; nothing when all is."""
        olds, news = _options(self._old, old), _options(self._new, new)
        for option in olds:
            judged = [list(self._option(option, one, path)) for one in news]
            if not any(narrowed == [] for narrowed in judged):
                yield from _nearest(option, news, judged, path)

    def _option(self, old: Schema, new: Schema, path: str) -> Iterator[Narrowing]:
        if not _bounds(new):
            return
        if _values(old) is not None:
            yield from self._values_fit(old, new, path)
            return
        if _values(new) is not None:
            yield (
                "enum_narrowed",
                path,
                f"only {_listed(_values(new) or [])} are allowed now; before it was {_kind(old)}.",
            )
            return
        was, now = old.get("type"), new.get("type")
        if was != now and (was, now) != ("integer", "number"):
            yield "type_narrowed", path, f"it was {_kind(old)} and is {_kind(new)} now."
            return
        yield from _bounds_fit(old, new, path)
        pair = id(old), id(new)
        if now == "object" and pair not in self._under_way:
            self._under_way.add(pair)
            yield from self._object(old, new, path)
            self._under_way.discard(pair)
        elif now == "array":
            yield from self._array(old, new, path)

    def _values_fit(self, old: Schema, new: Schema, path: str) -> Iterator[Narrowing]:
        allowed = _values(new)
        for value in _values(old) or []:
            if allowed is not None:
                if not any(_same(value, one) for one in allowed):
                    yield "enum_narrowed", path, f"{value!r} is not allowed any more."
            else:
                yield from self._option(_schema_of(value), new, path)

    def _object(self, old: Schema, new: Schema, path: str) -> Iterator[Narrowing]:
        olds, news = old.get("properties", {}), new.get("properties", {})
        required = set(old.get("required", []))
        rest, old_rest = new.get("additionalProperties", True), old.get("additionalProperties", True)
        for name, part in olds.items():
            place = f"{path}.{name}" if path else name
            if name in news:
                yield from self._fits(part, news[name], place)
                if name not in new.get("required", []):
                    yield from _default_fits(part, news[name], name in required, place)
            elif rest is False or news:
                yield (
                    "field_removed",
                    place,
                    "it is gone: entries that have it are read without it. Keep it, with a default, or raise "
                    "schema_version and let an upcaster say what becomes of it.",
                )
            elif rest is not True:
                yield from self._fits(part, rest, place)
        yield from _required_fit(olds.keys(), required, new, path)
        if rest not in (True, False) and not news and old_rest is not False:
            yield from self._fits({} if old_rest is True else old_rest, rest, f"{path}[*]")
        if "propertyNames" in new and not olds:
            names = {"type": "string", **old.get("propertyNames", {})}
            yield from self._fits(names, {"type": "string", **new["propertyNames"]}, f"{path} (names)")

    def _array(self, old: Schema, new: Schema, path: str) -> Iterator[Narrowing]:
        firsts, new_firsts = old.get("prefixItems", []), new.get("prefixItems", [])
        rest, new_rest = old.get("items", True), new.get("items", True)
        if new_rest is False and "maxItems" in new:
            new_rest = True  # what is beyond it, the limits have said
        ends = old.get("maxItems", len(firsts) if rest is False else None)
        named = max(len(firsts), len(new_firsts))
        for index in range(named if ends is None else min(named, ends)):
            part = firsts[index] if index < len(firsts) else rest
            its = new_firsts[index] if index < len(new_firsts) else new_rest
            yield from self._fits(_as_schema(part), _as_schema(its), f"{path}[{index}]")
        if rest is not False and (ends is None or ends > named):
            yield from self._fits(_as_schema(rest), _as_schema(new_rest), f"{path}[]")


def _required_fit(
    olds: Collection[str], old_required: Collection[str], new: Schema, path: str
) -> Iterator[Narrowing]:
    """Fields that every entry must have now. olds: the fields there were."""
    for name in new.get("required", []):
        place = f"{path}.{name}" if path else name
        if name in olds and name not in old_required:
            remedy = "its default is gone: entries that left it out no longer decode. Put it back."
            yield "default_removed", place, remedy
        elif name not in olds:
            remedy = "it is new and has no default: older entries do not have it. Give it one."
            yield "required_added", place, remedy


def _as_schema(part: Schema | bool) -> Schema:
    """true and false, which are schemas too, spelt out."""
    if isinstance(part, bool):
        return {} if part else {"enum": []}
    return part


def _options(document: Schema, schema: Schema) -> list[Schema]:
    """The alternatives of a union; references followed."""
    if "$ref" in schema:
        return _options(document, document["$defs"][schema["$ref"].removeprefix(REF)])
    if "anyOf" in schema:
        return [option for part in schema["anyOf"] for option in _options(document, part)]
    return [schema]


def _bounds(schema: Schema) -> set[str]:
    return schema.keys() - _NOTES


def _values(schema: Schema) -> list[object] | None:
    """All values, where they are listed."""
    return [schema["const"]] if "const" in schema else schema.get("enum")


def _same(one: object, other: object) -> bool:
    are_numbers = all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in (one, other)
    )
    return (are_numbers or type(one) is type(other)) and bool(one == other)


def _schema_of(value: object) -> Schema:
    """A schema that is as narrow as one value, as far as enums hold any: texts, integers, null."""
    if value is None:
        return {"type": "null"}
    if isinstance(value, bool):
        return {"type": "boolean"}
    if isinstance(value, str):
        return {"type": "string", "minLength": len(value), "maxLength": len(value)}
    return {"type": "integer" if isinstance(value, int) else "number", "minimum": value, "maximum": value}


def _bounds_fit(old: Schema, new: Schema, path: str) -> Iterator[Narrowing]:
    """Lengths, limits, and what can only be compared for being the same."""
    for keyword in sorted(_bounds(new) - _JUDGED):
        if old.get(keyword) != new[keyword]:
            yield (
                "not_judged",
                path,
                f"its {keyword} changed, of which it cannot be told what it does to old entries.",
            )
    for word, meaning in _TEXT_SAME.items():
        if word in new and old.get(word) != new[word]:
            yield (
                f"{word.lower()}_tightened",
                path,
                f"its {meaning} is {new[word]} now; it was {old.get(word, 'free')}.",
            )
    before = _limits(old)
    for meaning, (limit, text) in _limits(new).items():
        if meaning not in before or limit > before[meaning][0]:
            was = f"it was {before[meaning][1]}" if meaning in before else "there was none"
            yield "bound_tightened", path, f"its {meaning} is {text} now; {was}."
    step = new.get("multipleOf")
    if step is not None and (old.get("multipleOf") is None or old["multipleOf"] % step):
        yield "bound_tightened", path, f"it must be a multiple of {step} now."
    if new.get("uniqueItems") and not old.get("uniqueItems"):
        yield "type_narrowed", path, "it holds each value once now; before it was a list."


def _limits(schema: Schema) -> dict[str, tuple[tuple[float, int], str]]:
    """Meaning -> a pair that grows as the limit tightens, and how it reads."""
    limits: dict[str, tuple[tuple[float, int], str]] = {}
    for word, (meaning, sign, is_exclusive) in _LIMITS.items():
        if word in schema:
            limit = (
                (sign * schema[word], is_exclusive),
                f"{schema[word]}{', exclusive' if is_exclusive else ''}",
            )
            limits[meaning] = max(limit, limits.get(meaning, limit))
    return limits


def _default_fits(old: Schema, new: Schema, was_required: bool, path: str) -> Iterator[Narrowing]:
    """A field left out of an entry must still mean what it meant."""
    if was_required or "default" not in old:
        return  # then it is in every entry
    if "default" not in new:
        yield (
            "default_changed",
            path,
            f"its default {old['default']!r} is made anew now: what entries that left it out meant is lost.",
        )
    elif not _same(old["default"], new["default"]):
        was, now = old["default"], new["default"]
        problem = (
            f"its default was {was!r} and is {now!r} now, which changes what entries that left it out mean."
        )
        yield "default_changed", path, problem


def _nearest(option: Schema, news: list[Schema], judged: list[list[Narrowing]], path: str) -> list[Narrowing]:
    """Of a union's options, what keeps the value from the one it is nearest to; or that there is none."""
    kind = option.get("type")
    alike = [narrowed for one, narrowed in zip(news, judged, strict=True) if one.get("type") == kind]
    if len(news) == 1 or len(alike) == 1:
        return (alike or judged)[0]
    return [("type_narrowed", path, f"{_kind(option)} is not among what it may be any more.")]


def _kind(schema: Schema) -> str:
    listed = _values(schema)
    if listed is not None:
        return f"one of {_listed(listed)}"
    named = schema.get("title") or schema.get("type") or "anything"
    more = [str(schema[word]) for word in ("format", "contentEncoding") if word in schema]
    return " ".join([str(named), *more])


def _listed(values: list[object]) -> str:
    return ", ".join(map(repr, values)) or "nothing"
