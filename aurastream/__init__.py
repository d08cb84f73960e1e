"""AuraStream: event-sourced views of clips and videos on Redis Streams, each event counted exactly once."""

from importlib.metadata import version

__version__ = version("aurastream")
