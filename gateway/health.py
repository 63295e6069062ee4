"""Whether the gateway lives, whether it can serve, and what it has counted."""

import asyncio
from typing import Annotated

import prometheus_client
from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from gateway.problems import json


class Readiness(Struct):
    """Whether requests can be served, and if not, why."""

    ready: bool
    reasons: Annotated[list[str], Meta(description="Empty when ready.")]


async def healthz(request: Request) -> Response:
    """Tell whether the process lives."""
    return PlainTextResponse("ok\n")


async def readyz(request: Request) -> Response:
    """Tell whether requests can be served, and if not, why."""
    reasons = []
    if not request.state.kafka.reachable:
        reasons.append("Kafka does not answer")
    if not request.state.registry.loaded.is_set():
        reasons.append("the topic tenants is not read to its end yet")
    return json(503 if reasons else 200, Readiness(not reasons, reasons))


async def metrics(request: Request) -> Response:
    """Show the metrics of this process, for Prometheus."""
    # In a thread: with many tenants and routes it takes tens of milliseconds, in which no request would be answered.
    text = await asyncio.to_thread(prometheus_client.generate_latest)
    return Response(text, media_type=prometheus_client.CONTENT_TYPE_LATEST)
