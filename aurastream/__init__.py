"""AuraStream: event-sourced views of clips and videos on Redis Streams, each event counted exactly once."""

__version__: str


def __getattr__(name: str) -> str:
    """The version is in the installed package's metadata; who does not ask does not look there."""
    if name == "__version__":
        from importlib.metadata import version

        return version("aurastream")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
