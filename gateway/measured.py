"""Counts and times requests: by route, tenant and status."""

import time
from functools import cache
from typing import Final

from prometheus_client import Counter, Histogram
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.traces import begun
from schemas import metrics
from schemas.top_tenants import NOBODY

WHOSE: Final = "tenant_label"
"""Where a request's state has its tenant's label, once its key is known."""
_received: Final = cache(metrics.ROWS_RECEIVED.labels)


@cache
def _meters(route: str, tenant: str, status: int) -> tuple[Counter, Histogram]:
    return metrics.REQUESTS.labels(route, tenant, str(status)), metrics.REQUEST_SECONDS.labels(route)


metrics.TOP.on_removed += [_received.cache_clear, _meters.cache_clear]


def received(request: Request, entity: str, verdict: str, rows: int) -> None:
    """Count rows of the request's tenant as accepted or rejected."""
    if rows:
        _received(entity, verdict, metrics.TOP.of(request.path_params["tenant_id"], rows)).inc(rows)


def one_accepted(entity: str, tenant: str) -> None:
    """Count one row of the tenant with this label."""
    _received(entity, "accepted", tenant).inc()


class Measured:
    """Plain ASGI, since BaseHTTPMiddleware is slow."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status, span = time.perf_counter(), 500, begun(scope)

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            route = getattr(scope.get("endpoint"), "__name__", "none").strip("_")
            answered, seconds = _meters(route, scope["state"].get(WHOSE, NOBODY), status)
            answered.inc()
            seconds.observe(time.perf_counter() - started)
            if span is not None:
                span.end(scope["method"], route, status)
