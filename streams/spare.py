"""
What is written although the server is full: what a person decides, and what leads to memory being freed.

    beyond(key of a hash, command, argument, ..)   one command in a script that begins with a removal
    put_beyond(server, key, ..)                    the same, at once

A server that has reached its maxmemory refuses a script's first write where that needs memory; once a script
has written anything, the rest of it is let through, as it could not be undone. So a script that must be let
through begins with HDEL of a field that is nowhere, which removes nothing and needs no memory; producers'
scripts and commits do not, and are refused. Tests fill Redis 7.0 and Valkey 9.1; 6.2 decides by the same
rule.

Decision (2026-11): that first removal. Refused: the script flag allow-oom (``#!lua``), which Redis 6.2
does not know, and which takes a script's parts out of the mode that all others run in. What it may take
beyond the limit: a few hundred bytes a decision (audit events, the archive's slot, leases, a record of
generations). What it costs a renewal of ten leases (70 us of the server) is below the noise.
"""

from __future__ import annotations

from aurastream.streams.connection import Server
from aurastream.streams.drive import Command, Reply
from aurastream.streams.wire import Script

_SPARE = Script(__file__, "spare.lua")


def beyond(key: str, name: str, *arguments: str | bytes | int) -> Command:
    """The call that puts one command to a hash, full or not."""
    return _SPARE.call((key,), (name, *arguments))


def put_beyond(server: Server, key: str, name: str, *arguments: str | bytes | int) -> Reply:
    """The same, at once; its answer."""
    return server.run(_SPARE, (key,), (name, *arguments))
