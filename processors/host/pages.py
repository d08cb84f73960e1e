"""
The host's pages.

    /health   this process alone, for a liveness probe: 503 is what a restart mends (health.py), else 200
    /ready    200 while it takes lanes: it is a member, its leases are kept, the server answers; else 503
    /fleet    all lanes of all groups, whoever runs them, and every host: 503 while it is red, else 200
    /metrics  Prometheus text format 0.0.4

Each answers within a second, whatever the server does. Read only, on loopback, no secrets in them: put a
proxy with authentication in front to show them elsewhere.
"""

from __future__ import annotations

import asyncio

import msgspec
from faust.types.web import Request, Response, View
from prometheus_client import CONTENT_TYPE_LATEST

from aurastream.processors.fleet import Colour, Fleet, unreachable, with_lanes
from aurastream.processors.host.app import App
from aurastream.processors.host.elsewhere import lanes_elsewhere
from aurastream.processors.host.health import Health, health_of

NOT_YET = "was not reached yet"


def serve_pages(app: App) -> None:
    """Add the pages to a host's app."""

    @app.page("/health")
    async def health_page(web: View, request: Request) -> Response:
        health = await _health(app)
        return _answer(web, health, is_well=health.healthy)

    @app.page("/ready")
    async def ready_page(web: View, request: Request) -> Response:
        health = await _health(app)
        waits_for = "" if health.is_answered else f"the server {health.server}"
        if app.is_prepared:
            waits_for = waits_for or app.lanes.waits_for
        is_ready = app.is_ready and not waits_for
        partitions = app.lanes.owned if app.is_prepared else 0
        body = {"ready": is_ready, "partitions": partitions, "reason": waits_for}
        return _answer(web, body, is_well=is_ready)

    @app.page("/fleet")
    async def fleet_page(web: View, request: Request) -> Response:
        fleet = await _fleet(app)
        return _answer(web, fleet, is_well=fleet.colour is not Colour.RED)

    @app.page("/metrics")
    async def metrics_page(web: View, request: Request) -> Response:
        text = b""
        if app.is_prepared:
            health, fleet = await asyncio.gather(_health(app), _fleet(app))
            text = app.measures.exposition(app.lanes, health, fleet)
        return web.bytes(text, headers={"Content-Type": CONTENT_TYPE_LATEST})


async def _fleet(app: App) -> Fleet:
    """As the server has it, and what this host alone knows."""
    if not app.is_prepared:
        return unreachable(NOT_YET)
    return with_lanes(await app.sight.fleet(), lanes_elsewhere(app.lanes))


async def _health(app: App) -> Health:
    """A host that tries to reach its server for the first time is well: a restart would try no better."""
    return await health_of(app.lanes, app.sight) if app.is_prepared else Health(True, "", NOT_YET, [])


def _answer(web: View, value: object, *, is_well: bool) -> Response:
    body = msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"
    return web.bytes(body, status=200 if is_well else 503, content_type="application/json")
