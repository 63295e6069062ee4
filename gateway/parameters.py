"""Parameters and headers of the HTTP API, as OpenAPI describes them."""

from typing import Any, Final, get_args

from gateway import console
from gateway.filters import ALERTS, FILTERS, FINDINGS, MAX_SCORE
from gateway.judged import STATUSES
from gateway.reads import MAX_PAGE
from gateway.schema_pages import FILES
from gateway.uploads import MAX_CHUNKS
from producers.stored import DATE, DATE_TIME
from producers.tenant import TENANT_ID
from schemas.rows import ID_PATTERN, Status
from schemas.stock import MAX_QUANTITY, OUTCOMES

IDEMPOTENCY_KEY: Final = "Idempotency-Key"
REPLAYED: Final = "Idempotent-Replayed"
LIMITED: Final = ("RateLimit-Policy", "RateLimit")

_TEXT: Final = {"type": "string"}
_SOME: Final = {"type": "string", "minLength": 1}
_WORDS: Final = {"type": "string", "minLength": 1, "maxLength": 500}
_MOMENT: Final = {
    "type": "string",
    "pattern": f"^({DATE}|{DATE_TIME})$",
    "examples": ["2026-01-31", "2026-01-31T12:00:00Z"],
}
_DAY: Final = {"type": "string", "format": "date", "pattern": f"^{DATE}$", "examples": ["2026-01-31"]}
_FILTERS: Final[dict[str, dict[str, Any]]] = {
    "status": {"type": "array", "items": {"type": "string", "enum": list(get_args(Status))}, "minItems": 1},
    "active": {"type": "boolean"},
    "from": _MOMENT,
    "to": _MOMENT,
    "currency": {"type": "string", "pattern": "^[A-Z]{3}$", "maxLength": 3, "examples": ["EUR"]},
    "unresolved": {"type": "string", "enum": ["true"]},
    "stock.product_id": {"type": "array", "items": _WORDS, "minItems": 1},
    "below": {"type": "integer", "minimum": -MAX_QUANTITY, "maximum": MAX_QUANTITY},
    "updated_since": _MOMENT,
    "outcome": {"type": "array", "items": {"type": "string", "enum": list(OUTCOMES)}, "minItems": 1},
    "name": {"type": "array", "items": {"type": "string", "enum": list(FINDINGS)}, "minItems": 1},
    "min_score": {"type": "integer", "minimum": 0, "maximum": MAX_SCORE},
    "price_history.status": {"type": "array", "items": {"type": "string", "enum": list(STATUSES)}, "minItems": 1},
    "price_alerts.status": {"type": "array", "items": {"type": "string", "enum": list(ALERTS)}, "minItems": 1},
    "by": {"type": "string", "enum": ["revenue", "quantity"], "default": "revenue"},
    **{
        f"{entity}.{name}": _DAY
        for entity in ("daily_metrics", "top_products", "stock_outs", "price_anomalies")
        for name in ("from", "to")
    },
}
"""Of those that take something else than words, by name, or by what they filter and name."""
_ONLY: Final = {
    "orders.status": "with one of these statuses",
    "orders.from": "of this moment and later",
    "orders.to": "before this moment",
    "orders.product_id": "with an item of this product",
    "orders.sku": "with an item of this product",
    "orders.unresolved": "that name a customer or a product not known yet",
    "products.active": "that are active, or are not",
    "stock.product_id": "of one of these products",
    "stock.below": "with less than this",
    "stock.updated_since": "that changed at this moment or later",
    "stock_history.outcome": "with one of these outcomes",
    "price_history.status": "with one of these statuses",
    "price_alerts.product_id": "of this product",
    "price_alerts.name": "with one of these findings",
    "price_alerts.status": "with one of these statuses",
    "price_alerts.min_score": "with a finding of at least this score",
    "price_alerts.from": "of this moment and later",
    "price_alerts.to": "before this moment",
    **{
        f"{entity}.{name}": said
        for entity in ("daily_metrics", "top_products", "stock_outs", "price_anomalies")
        for name, said in (("from", "of this day and later"), ("to", "before this day"))
    },
}
"""Of those that do not simply compare a field."""
_NOUN: Final = {
    "stock": "levels",
    "stock_history": "movements",
    "price_history": "changes",
    "price_alerts": "alerts",
    "daily_metrics": "days",
    "top_products": "orders",
    "stock_outs": "days",
    "price_anomalies": "days",
}
_KEY: Final = {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[!#-~]([ !#-~]*[!#-~])?$"}


def _path(name: str, description: str, schema: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "description": description, "schema": schema, **more}


def _query(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _header(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "header", "description": description, "schema": schema}


PARAMETERS: Final[dict[str, dict[str, Any]]] = {
    "tenant_id": _path("tenant_id", "The tenant.", {"type": "string", "pattern": TENANT_ID}, example="acme"),
    "token": _path("token", "As POST …/uploads answered it.", {"type": "string", "minLength": 1}),
    "n": _path("n", "Number of the chunk.", {"type": "integer", "minimum": 1, "maximum": MAX_CHUNKS}, example=1),
    "key_id": _path("key_id", "The key, by its id as the tenant lists it.", {"type": "string", "minLength": 1}),
    "file": _path("file", "A file of the page.", {"type": "string", "enum": list(FILES)}),
    "asset": _path("asset", "A file of the page.", {"type": "string", "enum": list(console.FILES)}),
    "uploads.limit": _query(
        "limit", "Size of the page.", {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}
    ),
    "uploads.before": _query("before", "The upload_id after which it begins.", {"type": "string", "format": "uuid"}),
    "on_error": _query(
        "on_error",
        "Where some rows are wrong: take the others, or none (all rows must then fit one message).",
        {"type": "string", "enum": ["skip", "reject"], "default": "skip"},
    ),
    "wait": _query(
        "wait",
        "Answer with lines: the answer, what became of each movement as soon as it is decided, and a summary, at the"
        " latest after so many seconds.",
        {"type": "string", "pattern": "^([1-9]|[12][0-9]|30)s?$", "examples": ["5s"]},
    ),
    "validate_only": _query("validate_only", "Publish nothing.", {"type": "boolean", "default": False}),
    "limit": _query("limit", "Size of the page.", {"type": "integer", "minimum": 1, "maximum": 1_000, "default": 100}),
    "cursor": _query("cursor", "The next_cursor of the page before.", _TEXT),
    "record_id": _path("record_id", "The merchant's own id; slashes in it may be sent as they are.", _SOME),
    "product_id": _path(
        "product_id",
        "The product; slashes in its id may be sent as they are.",
        {"type": "string", "minLength": 1, "maxLength": 100, "pattern": ID_PATTERN},
        example="P-1",
    ),
    "event_id": _path("event_id", "As it was answered, or as a direct producer made it.", _SOME),
    "page.limit": _query(
        "limit",
        "Size of a page of JSON: 1 to 1,000, by default 100. Of NDJSON and CSV, how many rows at most, by default all;"
        " more than 1,000 is for these alone.",
        {"type": "integer", "minimum": 1, "maximum": MAX_PAGE},
    ),
    "page.cursor": _query("cursor", "The next_cursor of the page before; filters must be the same.", _SOME),
    **{
        f"{entity}.{name}": _query(
            name,
            f"Only {_NOUN.get(entity, entity)} {_ONLY.get(f'{entity}.{name}', f'with this {name}')}: {known.takes}.",
            _FILTERS.get(f"{entity}.{name}", _FILTERS.get(name, _WORDS)),
        )
        for entity, filters in FILTERS.items()
        for name, known in filters.items()
    },
    "top_products.by": _query("by", "What the first have most of.", _FILTERS["by"]),
    IDEMPOTENCY_KEY: _header(
        IDEMPOTENCY_KEY,
        "Names the request, quoted (RFC 9651) or bare: sent again under it, it counts once, and once it is stored the"
        " first answer comes again. Made for you where absent; the answer names it.",
        _KEY,
    ),
    "export_id": _path("export_id", "As POST …/exports answered it.", {"type": "string", "minLength": 1}),
    "Range": _header("Range", "The bytes wanted (RFC 9110, section 14).", _TEXT),
    "If-Range": _header("If-Range", "The ETag of what the client has a part of; of another, all of it comes.", _TEXT),
    "If-Match": _header("If-Match", "The ETag of the only file that is wanted; of another, none comes: 412.", _TEXT),
    "If-Modified-Since": _header("If-Modified-Since", "304 for a file that is no newer (RFC 9110).", _TEXT),
    "If-Unmodified-Since": _header("If-Unmodified-Since", "412 for a file that is newer (RFC 9110).", _TEXT),
    "If-None-Match": _header("If-None-Match", "The ETag of what the client has (RFC 9110).", _TEXT),
    "Last-Event-ID": _header(
        "Last-Event-ID",
        "The id of the last event that the client has (WHATWG HTML, section 9.2): what came since is sent first.",
        {"type": "string", "pattern": "^[0-9]{1,6}:[0-9]{1,18}$"},
    ),
    "traceparent": _header("traceparent", "W3C Trace Context; passed on with the rows.", _TEXT),
}

HEADERS: Final[dict[str, dict[str, Any]]] = {
    IDEMPOTENCY_KEY: {"description": "The request's, or the one made for it.", "schema": _KEY},
    REPLAYED: {"description": "This is the first answer again.", "schema": {"type": "string", "const": "true"}},
    "RateLimit-Policy": {
        "description": "The limits that this request counts against: q requests in w seconds"
        " (draft-ietf-httpapi-ratelimit-headers). Absent where none applies.",
        "schema": {"type": "string", "pattern": '^"(tenant|product)";q=[0-9]+;w=60(, "product";q=[0-9]+;w=60)?$'},
        "example": '"tenant";q=100;w=60',
    },
    "RateLimit": {
        "description": "What is left of them: r requests, for t seconds.",
        "schema": {
            "type": "string",
            "pattern": '^"(tenant|product)";r=[0-9]+;t=[0-9]+(, "product";r=[0-9]+;t=[0-9]+)?$',
        },
        "example": '"tenant";r=99;t=60',
    },
    "Retry-After": {
        "description": "Seconds after which the same request can work.",
        "schema": {"type": "integer", "minimum": 1},
    },
    "Applied-Up-To": {
        "description": "What was accepted before then is in this answer. Absent before anything was.",
        "schema": {"type": "string", "format": "date-time"},
    },
    "X-Accel-Buffering": {"description": "Tells nginx to pass each event on at once.", "schema": _TEXT},
    "Vary": {"description": "RFC 9110.", "schema": _TEXT},
    "WWW-Authenticate": {"description": "How to authenticate (RFC 9110).", "schema": _TEXT},
    "Accept-Ranges": {"description": "Ranges of bytes can be asked for.", "schema": _TEXT},
    "Content-Range": {"description": "Which bytes these are; with 416, how many there are.", "schema": _TEXT},
    "Content-Disposition": {"description": "A name for the file.", "schema": _TEXT},
    "Last-Modified": {"description": "When the file was written.", "schema": _TEXT},
    "Repr-Digest": {"description": "SHA-256 of the whole file (RFC 9530).", "schema": _TEXT},
    "Location": {"description": "The path of what was made.", "schema": {"type": "string", "format": "uri-reference"}},
    "Cache-Control": {"description": "RFC 9111.", "schema": _TEXT},
    "ETag": {"description": "Names this version (RFC 9110).", "schema": _TEXT},
    "Content-Security-Policy": {"description": "The page loads from this host only.", "schema": _TEXT},
    "Referrer-Policy": {"description": "The page tells no other where a visitor came from.", "schema": _TEXT},
    "X-Content-Type-Options": {"description": "Files are what they say they are.", "schema": _TEXT},
}
