"""Scripts and their callers name the same answers."""

from __future__ import annotations

import re
from enum import IntEnum

import pytest

from aurastream.streams import Script
from aurastream.streams.archive.archiver import ArchiveAnswer
from aurastream.streams.archive.moving import MoveAnswer
from aurastream.streams.personal.erasure import EraseAnswer
from aurastream.streams.retention.chunk import TrimAnswer


@pytest.mark.parametrize("answers", [ArchiveAnswer, MoveAnswer, EraseAnswer, TrimAnswer])
def test_a_scripts_table_of_answers_is_its_callers_enum(answers: type[IntEnum]) -> None:
    """A number that means one thing on the server and another in the process is a refusal taken for
    success.
    """
    (table,) = [
        match[1]
        for script in Script.every.values()
        if (match := re.search(rf"local ANSWER = \{{(.*)\}} -- {answers.__name__}\n", script.text))
    ]

    named = dict(pair.split(" = ") for pair in table.split(", "))
    assert {name: int(number) for name, number in named.items()} == {
        item.name: item.value for item in answers
    }
