"""Errors as RFC 9457 problem details, each with a stable `code`, whether a retry can help, and what to do."""

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field
from starlette.requests import Request
from starlette.responses import Response

from gateway.parse import RowError


class ProblemDetails(Struct):
    """An error (RFC 9457)."""

    type: Annotated[str, Meta(description="urn:tillstream:problem:<code>")]
    title: str
    status: int
    detail: Annotated[str, Meta(description="What is wrong, and what to do.")]
    code: Annotated[str, Meta(description="Never changes its meaning: the part for programs.")]
    retriable: Annotated[bool, Meta(description="Whether the same request can work later, after Retry-After.")]
    errors: Annotated[list[RowError], Meta(description="What is wrong with each row.")] | UnsetType = UNSET
    errors_omitted: Annotated[int, Meta(description="How many more errors there are.")] | UnsetType = UNSET
    rejected_ids: (
        Annotated[list[str], Meta(description="Of the messages that keep the rejected rows, where they are kept.")]
        | UnsetType
    ) = UNSET
    parameter: Annotated[str, Meta(description="The parameter that is wrong.")] | UnsetType = UNSET
    # The name is of draft-ietf-httpapi-ratelimit-headers-10, section "Quota Exceeded".
    violated_policies: list[str] | UnsetType = field(default=UNSET, name="violated-policies")

    @classmethod
    def of(cls, status: int, code: str, detail: str, *, retriable: bool, **more: Any) -> "ProblemDetails":
        """With the type and the title of the code."""
        type_, title = f"urn:tillstream:problem:{code}", code.replace("_", " ")
        return cls(type_, title, status, detail, code, retriable, **more)


class Problem(Exception):
    """An answer that is an error. A `code` never changes its meaning; with `retry_after` the same request can work."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        retry_after: int | None = None,
        headers: dict[str, str] | None = None,
        **extra: Any,
    ) -> None:
        """`extra` are further fields of ProblemDetails."""
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.retry_after = retry_after
        self.headers = headers or {}
        self.extra = extra


def json(status: int, body: Any, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(msgspec.json.encode(body), status, headers, media_type="application/json")


async def render(request: Request, exc: Exception) -> Response:
    """The answer to a Problem; it names the Idempotency-Key, so that the client can try again under it."""
    assert isinstance(exc, Problem)
    retriable = exc.retry_after is not None
    body = ProblemDetails.of(exc.status, exc.code, exc.detail, retriable=retriable, **exc.extra)
    headers = dict(exc.headers)
    if exc.retry_after is not None:
        headers["Retry-After"] = str(exc.retry_after)
    if key := getattr(request.state, "idempotency_key", None):
        headers["Idempotency-Key"] = key
    if exc.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="tillstream"'
    return Response(msgspec.json.encode(body), exc.status, headers, media_type="application/problem+json")
