"""The worker's app for Faust's own command line: ``faust -A aurastream.processors.app worker``."""

from aurastream.processors.worker.build import make_app

app = make_app()
