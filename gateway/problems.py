"""Errors as RFC 9457 problem details, each with a stable `code`, whether a retry can help, and what to do."""

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response


class Problem(Exception):
    """An answer that is an error. A `code` never changes its meaning; with `retry_after` the same request can work."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        retry_after: int | None = None,
        errors: list[dict[str, Any]] | None = None,
        headers: dict[str, str] | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.retry_after = retry_after
        self.errors = errors
        self.headers = headers or {}
        self.extra = extra


def json(status: int, body: Any, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(msgspec.json.encode(body), status, headers, media_type="application/json")


async def render(request: Request, exc: Exception) -> Response:
    """The answer to a Problem; it names the Idempotency-Key, so that the client can try again under it."""
    assert isinstance(exc, Problem)
    body = {
        "type": f"urn:tillstream:problem:{exc.code}",
        "title": exc.code.replace("_", " "),
        "status": exc.status,
        "detail": exc.detail,
        "code": exc.code,
        "retriable": exc.retry_after is not None,
        **exc.extra,
    }
    if exc.errors is not None:
        body["errors"] = exc.errors
    headers = dict(exc.headers)
    if exc.retry_after is not None:
        headers["Retry-After"] = str(exc.retry_after)
    if key := getattr(request.state, "idempotency_key", None):
        headers["Idempotency-Key"] = key
    if exc.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="tillstream"'
    return Response(msgspec.json.encode(body), exc.status, headers, media_type="application/problem+json")
