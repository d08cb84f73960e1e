"""
The names of those who may hold a partition back, as the server has them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from aurastream.streams import Keys, Reply, Stream


def shown(name: bytes) -> str:
    """For people, who may write it so as well: a foreign group's name is any bytes."""
    return name.decode(errors="backslashreplace")


def named_keys(stream: Stream, prefix: str) -> list[str]:
    """What follows the prefix in the names of keys. cost O(all keys)"""
    names: Iterator[bytes] = stream.server.client.scan_iter(match=f"{prefix}*", count=1_000)
    return sorted({shown(key).removeprefix(prefix) for key in names})


def named_everywhere(stream: Stream, prefix_of: Callable[[Keys], str]) -> dict[Keys, list[str]]:
    """The same of each partition, by one look at all keys."""
    pattern = prefix_of(Keys(stream.name, 0)).replace(".0}", ".*}", 1)
    names = [shown(key) for key in stream.server.client.scan_iter(match=f"{pattern}*", count=1_000)]
    return {
        keys: sorted({name.removeprefix(prefix) for name in names if name.startswith(prefix)})
        for keys in stream.keys
        for prefix in (prefix_of(keys),)
    }


def server_groups(stream: Stream, keys: Keys) -> list[dict[bytes, Reply]]:
    """What the server says of a log's groups; of a log that is not there, none."""
    kind, what = stream.ask(keys.partition, ("TYPE", keys.log))[0], f"look at {keys.where}"
    if kind != b"stream":
        return []
    groups = stream.ask(keys.partition, ("XINFO", "GROUPS", keys.log), what=what)[0]
    return [dict(zip(flat[::2], flat[1::2], strict=True)) for flat in groups]
