"""A stream and a crew of hosts, for the tests of the fleet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from aurastream.streams import Server, Settings, Stream, open_stream
from tests.processors.fleet.crew import Crew


@pytest.fixture
def live(server: Server) -> Iterator[Stream]:
    stream = open_stream(server, "clips-live", create=True, settings=Settings(partitions=2))
    yield stream
    stream.close()


@pytest.fixture
def crew(server: Server) -> Iterator[Crew]:
    crew = Crew(server, "clips-live")
    yield crew
    crew.close()
