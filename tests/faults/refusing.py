"""
How a real server is made to refuse for a while, and healed.

    heal = refuse(client, directory, "MISCONF")     OOM, READONLY, NOREPLICAS or MISCONF, from now on
    heal()

OOM         maxmemory below what it uses, with noeviction
READONLY    a replica of a port nobody listens at: what a demoted primary is
NOREPLICAS  min-replicas-to-write, and there is none
MISCONF     a snapshot that cannot be written: in its place is a folder
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.servers import until

WHYS = ("OOM", "READONLY", "NOREPLICAS", "MISCONF")


def refuse(client: Any, directory: Path, why: str) -> Callable[[], None]:
    """Begin; what ends it. directory: the server's, where its snapshots go."""
    if why == "OOM":
        client.config_set("maxmemory", 1)
        return lambda: client.config_set("maxmemory", 0)
    if why == "NOREPLICAS":
        client.config_set("min-replicas-to-write", 1)
        return lambda: client.config_set("min-replicas-to-write", 0)
    if why == "READONLY":
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
        return lambda: client.execute_command("REPLICAOF", "NO", "ONE")
    return _misconf(client, directory)


def _misconf(client: Any, directory: Path) -> Callable[[], None]:
    snapshot = directory / "dump.rdb"
    snapshot.unlink(missing_ok=True)
    snapshot.mkdir()
    (snapshot / "file").touch()
    client.config_set("save", "3600 100000000")
    client.bgsave()
    until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", "a snapshot to fail")

    def heal() -> None:
        (snapshot / "file").unlink()
        snapshot.rmdir()
        client.bgsave()
        until(
            lambda: client.info("persistence")["rdb_last_bgsave_status"] == "ok", "a snapshot to be written"
        )
        client.config_set("save", "")

    return heal
