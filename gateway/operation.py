"""What an operation takes and answers, as the tables of operations say it, and what many of them share."""

from typing import Any, Final

from msgspec import Struct

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"
CSV: Final = "text/csv"
TENANT: Final = "/api/v1/tenants/{tenant_id}"

Examples = dict[str, Any]


class Content(Struct, frozen=True):
    """A body: its type (a msgspec type, or None for text), and examples by what they show."""

    type: Any = None
    examples: Examples = {}


class Taken(Struct, frozen=True):
    """A request's body, by media type."""

    description: str
    content: dict[str, Content]
    required: bool = True


class Said(Struct, frozen=True):
    """An answer that is no problem, its body by media type, and the headers that it always has."""

    description: str
    content: dict[str, Content] = {}
    headers: tuple[str, ...] = ()


class Operation(Struct, frozen=True):
    """`codes` are of the problems it can answer with; `headers` those that any of its answers may have.

    `summary` stands for the first line of the endpoint's docstring.
    """

    id: str
    tag: str
    answers: dict[int, Said]
    codes: tuple[str, ...] = ()
    taken: Taken | None = None
    parameters: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    security: tuple[str, ...] = ()
    summary: str = ""


ANY_CODE: Final = ("internal_error", "headers_too_large")
TENANT_CODES: Final = (
    *ANY_CODE, "missing_key", "invalid_key", "revoked_key", "wrong_tenant", "unknown_tenant", "not_found",
    "tenants_not_loaded",
)  # fmt: skip
"""Of every path of a tenant."""
BODY_CODES: Final = ("body_too_slow", "body_too_large", "broken_encoding", "unknown_encoding", "overloaded")
"""Of whatever takes a body."""
ROWS_CODES: Final = ("empty_body", "too_many_lines", "message_too_large", "unknown_media_type", "kafka_unavailable")
"""Of a body that is rows, besides."""
COMPRESSED: Final = "Plain, or with `Content-Encoding: gzip` or `zstd`."
KEYS: Final = ("ApiKey", "Bearer")
"""How a tenant authenticates."""
