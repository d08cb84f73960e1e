"""A real cluster for the tests: primaries with a replica each, on free loopback ports, stopped by pid by the
run that started them.
"""

from __future__ import annotations

import random
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import redis
from redis.crc import key_slot

from tests.servers import until

SLOTS = 16_384
NODE_TIMEOUT_MS = 1_500
PORTS = (11_000, 22_000)


def free_ports(count: int) -> list[int]:
    """Ports that are free now, with the bus port (port + 10,000) free as well.

    Below those that the kernel gives away by itself (from 32,768 on): a proxy or a connection made between
    this and the server's start took one of them, one run in many. By the system's own dice, as the tests' are
    thrown alike in every process.
    """
    held: list[socket.socket] = []
    ports: list[int] = []
    try:
        while len(ports) < count:
            probe, bus = socket.socket(), socket.socket()
            held += [probe, bus]
            port = random.SystemRandom().randrange(*PORTS)
            try:
                probe.bind(("127.0.0.1", port))
                bus.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue  # somebody has one of them: take another pair
            ports.append(port)
    finally:
        for opened in held:
            opened.close()
    return ports


class Node:
    """One process of the cluster."""

    def __init__(self, binary: str, directory: Path, port: int) -> None:
        self.port = port
        self._command = [
            binary,
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--cluster-enabled",
            "yes",
            "--dir",
            str(directory),
            "--save",
            "",
            "--cluster-config-file",
            f"nodes-{port}.conf",
            "--cluster-node-timeout",
            str(NODE_TIMEOUT_MS),
            "--appendonly",
            "no",
            "--cluster-replica-validity-factor",
            "0",
            "--repl-diskless-sync-delay",
            "0",
        ]
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        until(self.answers, f"node {self.port}")
        self.client: Any = redis.Redis(host="127.0.0.1", port=self.port, decode_responses=True)
        self.id: str = self.client.cluster("MYID")

    def answers(self) -> bool:
        try:
            with redis.Redis(host="127.0.0.1", port=self.port) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()


class Cluster:
    """primaries nodes that share the slots, each with one replica where replicas is true."""

    def __init__(self, binary: str, *, primaries: int = 3, replicas: bool = False) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="aura-"))
        self.nodes: list[Node] = []
        try:
            for port in free_ports(primaries * (2 if replicas else 1)):
                self.nodes.append(Node(binary, self.directory, port))
            self._join(primaries)
        except BaseException:
            self.stop()
            raise
        self.url = f"redis://127.0.0.1:{self.nodes[0].port}/0"

    def _join(self, primaries: int) -> None:
        first, *others = self.nodes
        for number, node in enumerate(self.nodes, start=1):
            node.client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number)
        for node in others:
            first.client.execute_command("CLUSTER", "MEET", "127.0.0.1", node.port)
        until(
            lambda: all(
                node.client.cluster("INFO")["cluster_known_nodes"] == str(len(self.nodes))
                for node in self.nodes
            ),
            "the nodes to meet",
        )
        bounds = [SLOTS * number // primaries for number in range(primaries + 1)]
        for node, start, end in zip(self.nodes[:primaries], bounds, bounds[1:], strict=False):
            node.client.execute_command("CLUSTER", "ADDSLOTS", *range(start, end))
        for replica, primary in zip(self.nodes[primaries:], self.nodes[:primaries], strict=False):
            until(lambda r=replica, p=primary: _follows(r, p), "a replica to know its primary")
        until(self.is_whole, "the cluster to be whole")

    def is_whole(self) -> bool:
        """Whether every living node says that all slots are served, and every replica is linked."""
        living = [node for node in self.nodes if node.process.poll() is None]
        return all(node.client.cluster("INFO")["cluster_state"] == "ok" for node in living) and all(
            node.client.info("replication").get("master_link_status", "up") == "up" for node in living
        )

    def owner_of(self, key: str) -> Node:
        """The primary that serves the key."""
        living = [node for node in self.nodes if node.process.poll() is None]
        for row in living[0].client.execute_command("CLUSTER", "SLOTS"):
            if int(row[0]) <= key_slot(key.encode()) <= int(row[1]):
                return next(node for node in living if node.port == int(row[2][1]))
        raise AssertionError(f"no node serves {key}")

    def stop(self) -> None:
        for node in self.nodes:
            node.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


def _follows(replica: Node, primary: Node) -> bool:
    try:
        replica.client.execute_command("CLUSTER", "REPLICATE", primary.id)
    except redis.ResponseError:
        return False  # it has not heard of the primary yet
    return True
