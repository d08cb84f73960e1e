"""Where archives are kept in tests: a directory, and a local server that speaks S3."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from moto.server import ThreadedMotoServer


class Place:
    """A url and the options it needs."""

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        self.url, self.options = url, options


@contextmanager
def s3_server() -> Iterator[dict[str, Any]]:
    """The options of a server of our own, on a free loopback port."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield {
            "key": "k",
            "secret": "s",
            "endpoint_url": f"http://{host}:{port}",
            "client_kwargs": {"region_name": "eu-central-1"},
        }
    finally:
        server.stop()


def directory(path: Path) -> Place:
    return Place(str(path), {})


def bucket(options: dict[str, Any]) -> Place:
    """A new bucket."""
    import s3fs

    name = f"archive-{secrets.token_hex(4)}"
    s3fs.S3FileSystem(**options, skip_instance_cache=True).mkdir(name)
    return Place(f"s3://{name}/kept", options)
