"""aurastream serve-redis: the embedded server in the foreground."""

from __future__ import annotations

import click

from aurastream.processors import as_json as print_json
from aurastream.processors import line
from aurastream.processors.commands.options import json_option
from aurastream.streams import EmbeddedServer, serve


@click.command("serve-redis")
@json_option
def serve_redis(as_json: bool) -> None:
    """Hold the embedded server until interrupted.

    Every command starts it on demand; this keeps it running between commands.
    """

    def ready(server: EmbeddedServer) -> None:
        if as_json:
            print_json({"home": str(server.home), "url": server.url, "pid": server.pid})
        else:
            line(f"serving {server.url} (pid {server.pid}), data in {server.home / 'data'}; Ctrl-C stops")

    serve(ready=ready)
