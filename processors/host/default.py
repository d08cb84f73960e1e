"""The host's app for Faust's own command line: ``faust -A aurastream.processors.host.default worker``."""

from aurastream.processors.host.make import make_app

app = make_app()
