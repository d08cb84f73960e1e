"""
CloudEvents 1.0, both ways, in the JSON event format.

    id <-> event_id   type <-> the event's tag   subject <-> subject   time <-> occurred_at (RFC 3339)   data
        <-> its own fields
    source <-> source ("aurastream" stands for none, as CloudEvents demands one)
    extensions: correlationid, causationid, traceparent (W3C), schemaversion

Nothing is lost silently: an attribute that has no place in our envelope is refused.
Source: CloudEvents specification 1.0.2, sections "Context Attributes" and "JSON Event Format".
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from aurastream.streams.codec import Codec, Json
from aurastream.streams.errors import DamagedEntry, InvalidEvent
from aurastream.streams.events import Event

NO_SOURCE = "aurastream"
_ENVELOPE = {
    "id": "event_id",
    "type": "type",
    "source": "source",
    "subject": "subject",
    "time": "occurred_at",
    "correlationid": "correlation_id",
    "causationid": "causation_id",
    "traceparent": "traceparent",
    "schemaversion": "version",
}
_REQUIRED = ("id", "source", "specversion", "type", "subject", "time")
PLACE = "aurastreamplace"  # extension: stream/partition/position a replay read it at; no part of the event
_OTHER = {"specversion", "datacontenttype", "data", PLACE}


def is_cloudevent(content: Mapping[str, object]) -> bool:
    """Whether it means to be one."""
    return "specversion" in content


def to_cloudevent(event: Event) -> Json:
    """The event as a CloudEvent, of JSON types."""
    plain: Json = msgspec.to_builtins(event)
    plain["version"] = type(event).schema_version
    return _made_of(plain)


def stored_as_cloudevent(raw: bytes) -> Json:
    """A stored event's JSON as a CloudEvent, whatever its type; fields that the type does not have are among
    its data.
    """
    plain: Json = msgspec.json.decode(raw)
    return _made_of({**plain, "version": plain.get("version", 1)})


def _made_of(plain: Json) -> Json:
    """plain: an event's fields, its type and its version."""
    made: Json = {"specversion": "1.0"}
    for theirs, ours in _ENVELOPE.items():
        value = plain.pop(ours, "")
        if value != "":
            made[theirs] = value
    made.setdefault("source", NO_SOURCE)
    return {**made, "datacontenttype": "application/json", "data": plain}


def _envelope_of(content: Mapping[str, object]) -> dict[str, object]:
    """The attributes as fields of an event, its type and ID first."""
    ours = {_ENVELOPE[attribute]: value for attribute, value in content.items() if attribute in _ENVELOPE}
    if ours["source"] == NO_SOURCE:
        del ours["source"]
    return {"type": ours.pop("type"), "event_id": ours.pop("event_id"), **ours}


def from_cloudevent(content: Mapping[str, object], codec: Codec) -> Event:
    """The CloudEvent as one of the codec's events; older versions are upcast.

    Raises InvalidEvent: not version 1.0, a missing or unknown attribute, binary data, an unfit type or data,
    a field in it that its type does not have.
    """
    name = str(content.get("id", ""))[:128]
    data = _data_of(name, content)
    try:
        event = codec.admit(msgspec.json.encode({**_envelope_of(content), **data}), "CloudEvent")
    except DamagedEntry as error:
        raise InvalidEvent(name, error.reason) from error
    if event is None:
        problem = f"type {content['type']!r} is not installed ({', '.join(sorted(codec.types))})"
        raise InvalidEvent(name, problem)
    return event


def _data_of(name: str, content: Mapping[str, object]) -> Json:
    """Its data, once every attribute is one that an event has a place for. Raises InvalidEvent."""
    if content.get("specversion") != "1.0":
        raise InvalidEvent(
            name, f"specversion {content.get('specversion')!r} is not '1.0'; send CloudEvents 1.0"
        )
    missing = [attribute for attribute in _REQUIRED if attribute not in content]
    if missing:
        raise InvalidEvent(
            name, f"the CloudEvent has no {', '.join(missing)}; we need {', '.join(_REQUIRED)}"
        )
    unknown = [
        attribute[:40] for attribute in content if attribute not in _ENVELOPE and attribute not in _OTHER
    ]
    if unknown:
        raise InvalidEvent(
            name,
            f"the attributes {', '.join(sorted(unknown))} have no place in an event; leave them out or put "
            "them in data",
        )
    if content.get("datacontenttype", "application/json") != "application/json":
        raise InvalidEvent(name, f"datacontenttype {content['datacontenttype']!r} is not application/json")
    data = content.get("data", {})
    if not isinstance(data, dict) or any(field in data for field in _ENVELOPE.values()):
        raise InvalidEvent(name, "data is no JSON object of the event's own fields")
    return data
