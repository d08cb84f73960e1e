"""
What events look like: written for others, and compared with what they looked like before.

    event classes -> json_schema.py -> asyncapi.py            for who reads or writes the log without us
    a baseline (an export of before) -> evolution.py, narrowing.py: what old entries would not survive
    every entry there ever was -> survey.py: does it decode as today's types?

Nothing here is needed to append or to fold; no server is asked but by the survey.
"""

from aurastream.streams.schema.asyncapi import asyncapi
from aurastream.streams.schema.evolution import BaselineUnfit, SchemaChange, compare, read_baseline
from aurastream.streams.schema.json_schema import as_bytes, json_schema
from aurastream.streams.schema.survey import Misread, Survey, survey

__all__ = [
    "BaselineUnfit",
    "Misread",
    "SchemaChange",
    "Survey",
    "as_bytes",
    "asyncapi",
    "compare",
    "json_schema",
    "read_baseline",
    "survey",
]
