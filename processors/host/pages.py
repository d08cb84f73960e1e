"""
The host's pages: /health, /ready, /metrics.

    /health   200 while every cursor with lag advances, else 503; JSON with every lane, its lag and its
              trouble
    /ready    200 once partitions were assigned for the first time and the server answers, else 503
    /metrics  Prometheus text format 0.0.4

Read only, on loopback, no secrets in them: put a proxy with authentication in front to show them elsewhere.
"""

from __future__ import annotations

import msgspec
from faust.types.web import Request, Response, View
from prometheus_client import CONTENT_TYPE_LATEST

from aurastream.processors.host.app import App


def serve_pages(app: App) -> None:
    """Add the pages to a host's app."""

    @app.page("/health")
    async def health_page(web: View, request: Request) -> Response:
        health = await app.measures.health(app.lanes)
        return web.bytes(
            _json(health), status=200 if health.healthy else 503, content_type="application/json"
        )

    @app.page("/ready")
    async def ready_page(web: View, request: Request) -> Response:
        health = await app.measures.health(app.lanes)
        is_ready = app.is_ready and (bool(health.lanes) or not health.reason)
        body = {"ready": is_ready, "partitions": app.lanes.owned, "reason": health.reason}
        return web.bytes(_json(body), status=200 if is_ready else 503, content_type="application/json")

    @app.page("/metrics")
    async def metrics_page(web: View, request: Request) -> Response:
        return web.bytes(
            await app.measures.exposition(app.lanes), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )


def _json(value: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"
