"""Whether the gateway lives, whether it can serve, and what it has counted."""

import asyncio
import hmac
import re
from typing import Annotated, Final

import prometheus_client
from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from gateway.headers import header
from gateway.problems import json
from schemas.top_tenants import NOBODY, OTHER

_TENANT: Final = re.compile(rb'tenant="([^"]*)"')


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
    """Show the metrics of this process, for Prometheus.

    With the admin token as bearer tenants are named; for everybody else a hash stands for each.
    """
    # In a thread: with many tenants and routes it takes tens of milliseconds, in which no request would be answered.
    text = await asyncio.to_thread(_written, None if _is_admin(request) else request.state.settings.secret)
    return Response(text, media_type=prometheus_client.CONTENT_TYPE_LATEST)


def _is_admin(request: Request) -> bool:
    token, given = request.state.settings.admin_token, header(request, b"authorization")
    return bool(token) and hmac.compare_digest(given.encode(), f"Bearer {token}".encode())


def _written(secret: str | None) -> bytes:
    """All metrics; with a secret tenants stand under hashes that only its owner can find again."""
    text = prometheus_client.generate_latest()
    return text if secret is None else _TENANT.sub(lambda found: _hidden(secret, found), text)


def _hidden(secret: str, found: re.Match[bytes]) -> bytes:
    if found[1].decode() in (OTHER, NOBODY):
        return found[0]
    return b'tenant="~%b"' % hmac.digest(secret.encode(), b"metrics\n" + found[1], "sha256")[:6].hex().encode()
