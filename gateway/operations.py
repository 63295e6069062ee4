"""What each operation takes and answers, as one table: the part of the OpenAPI document that no type says by itself."""

from typing import Annotated, Any, Final

from msgspec import Meta

from gateway import activity, admin, console, corrections, health, schema_pages, uploads
from gateway.examples import CORRECTIONS, CUSTOMERS, ORDERS, PRODUCTS
from gateway.export_operations import EXPORTS
from gateway.figure_operations import FIGURES
from gateway.ingest import Validated
from gateway.operation import (
    ANY_CODE,
    BODY_CODES,
    COMPRESSED,
    JSON,
    KEYS,
    NDJSON,
    ROWS_CODES,
    TENANT,
    TENANT_CODES,
    Content,
    Examples,
    Operation,
    Said,
    Taken,
)
from gateway.parameters import IDEMPOTENCY_KEY, LIMITED, REPLAYED
from gateway.price_operations import PRICES
from gateway.publishing import Answer
from gateway.read_operations import READS
from gateway.stock_operations import STOCK
from gateway.upload_state import RefusedRow, UploadState
from schemas.rows import ENTITIES, Customer, Order, Product

_BODY: Final = BODY_CODES
_ROWS: Final = ROWS_CODES
_UPLOAD: Final = (*TENANT_CODES, "unknown_upload")
_ADMIN: Final = (*ANY_CODE, "admin_off", "missing_admin_token", "wrong_admin_token", "tenants_not_loaded")
_CHANGE: Final = (*_ADMIN, *_BODY, "malformed_json", "bad_body", "kafka_unavailable")
_CHECKED: Final = ("bad_currency", "bad_limit", "bad_name", "bad_order_totals", "bad_price_policy", "bad_tenant_id")
_TOKEN: Final = ("AdminToken",)

_SOME: Final = Meta(min_length=1)
_ROW: Final[dict[str, tuple[Any, Any, Examples]]] = {
    "customers": (Customer, Annotated[list[Customer], _SOME], CUSTOMERS),
    "products": (Product, Annotated[list[Product], _SOME], PRODUCTS),
    "orders": (Order, Annotated[list[Order], _SOME], ORDERS),
}


def _ingest(entity: str) -> Operation:
    one, many, examples = _ROW[entity]
    one_row = {name: value for name, value in examples.items() if isinstance(value, dict)}
    lines = {name: value for name, value in examples.items() if isinstance(value, str)}
    return Operation(
        f"send_{entity}",
        "Ingest",
        summary=f"Send {entity}: many as NDJSON, one as JSON",
        taken=Taken(
            f"Rows, of which the good ones are taken. {COMPRESSED} As `application/json`, one row; as any other type,"
            " NDJSON.",
            {NDJSON: Content(many, lines), JSON: Content(one, one_row)},
        ),
        parameters=("on_error", "validate_only", IDEMPOTENCY_KEY, "traceparent"),
        answers={
            200: Said(
                "`validate_only=true`: what would become of the rows.", {JSON: Content(Validated)}, (IDEMPOTENCY_KEY,)
            ),
            202: Said("Kafka has acknowledged the good rows.", {JSON: Content(Answer)}, (IDEMPOTENCY_KEY,)),
        },
        codes=(
            *TENANT_CODES, *_BODY, *_ROWS, "bad_idempotency_key", "bad_parameter", "too_many_rows", "rows_rejected",
            "idempotency_key_reused", "rate_limited",
        ),
        headers=(IDEMPOTENCY_KEY, REPLAYED, *LIMITED),
        security=KEYS,
    )  # fmt: skip


def _state(description: str) -> Said:
    return Said(description, {JSON: Content(UploadState)})


_OPENING: Final = {
    "orders": {"entity": "orders", "name": "orders-2026-01.ndjson"},
    "customers in 12 chunks, within an hour": {"entity": "customers", "chunks": 12, "expires_in_s": 3600},
}
UPLOADS: Final = {
    f"POST {TENANT}/uploads": Operation(
        "open_upload",
        "Uploads",
        taken=Taken("The upload.", {JSON: Content(uploads.Opening, _OPENING)}),
        parameters=(IDEMPOTENCY_KEY,),
        answers={201: Said("The upload is open.", {JSON: Content(uploads.Opened)}, (IDEMPOTENCY_KEY,))},
        codes=(
            *TENANT_CODES, *_BODY, "bad_idempotency_key", "bad_document", "idempotency_key_reused", "kafka_unavailable",
        ),
        headers=(IDEMPOTENCY_KEY, REPLAYED),
        security=KEYS,
    ),
    f"GET {TENANT}/uploads/{{token}}": Operation(
        "show_upload",
        "Uploads",
        answers={200: _state("How far it is.")},
        codes=(*_UPLOAD, "reads_unavailable"),
        security=KEYS,
    ),
    f"DELETE {TENANT}/uploads/{{token}}": Operation(
        "cancel_upload",
        "Uploads",
        answers={202: _state("Cancelled, unless it was complete before.")},
        codes=(*_UPLOAD, "kafka_unavailable"),
        security=KEYS,
    ),
    f"PUT {TENANT}/uploads/{{token}}/chunks/{{n}}": Operation(
        "send_chunk",
        "Uploads",
        taken=Taken(
            f"Rows of the upload's kind. {COMPRESSED}",
            {NDJSON: Content(Annotated[list[dict[str, Any]], _SOME], {"two orders": ORDERS["two orders"]})},
        ),
        answers={202: Said("Kafka has acknowledged the good rows.", {JSON: Content(uploads.TakenChunk)})},
        codes=(
            *_UPLOAD, *_BODY, *_ROWS, "bad_chunk_number", "chunk_conflict", "chunk_out_of_range", "upload_cancelled",
            "upload_expired",
        ),
        headers=(REPLAYED,),
        security=KEYS,
    ),
    f"POST {TENANT}/uploads/{{token}}/complete": Operation(
        "complete_upload",
        "Uploads",
        taken=Taken("The number of chunks.", {JSON: Content(uploads.Completion, {"one chunk": {"chunks": 1}})}),
        answers={202: _state("There are so many chunks and no others.")},
        codes=(
            *_UPLOAD, *_BODY, "bad_document", "kafka_unavailable", "too_few_chunks", "upload_cancelled",
            "upload_completed",
            "upload_expired",
        ),
        security=KEYS,
    ),
    f"POST {TENANT}/uploads/{{token}}/corrections": Operation(
        "correct_rows",
        "Uploads",
        taken=Taken(
            f"Lines of …/errors with their rows put right, 10,000 at most. {COMPRESSED}",
            {NDJSON: Content(Annotated[list[corrections.Correction], _SOME], CORRECTIONS)},
        ),
        parameters=("traceparent",),
        answers={202: Said("Kafka has acknowledged the good ones.", {JSON: Content(corrections.Corrected)})},
        codes=(*_UPLOAD, *_BODY, *_ROWS, "bad_parameter", "reads_unavailable", "upload_cancelled"),
        security=KEYS,
    ),
    f"GET {TENANT}/uploads/{{token}}/errors": Operation(
        "list_refused_rows",
        "Uploads",
        answers={
            200: Said("One object a line.", {NDJSON: Content(list[RefusedRow])}),
        },
        codes=(*_UPLOAD, "reads_unavailable"),
        security=KEYS,
    ),
}  # fmt: skip

_NEW_TENANT: Final = {
    "a shop": {"tenant_id": "acme", "name": "Acme Ltd", "currency": "EUR"},
    "with limits and policies": {
        "tenant_id": "acme-us",
        "currency": "USD",
        "limits": {"requests_per_minute": 1000, "product_events_per_minute": 0},
        "policies": {"currencies": ["USD", "CAD"], "order_totals": "at_least", "oversell": True},
    },
}
_CHANGES: Final = {
    "another name": {"name": "Acme Europe"},
    "no limit a product": {"limits": {"product_events_per_minute": 0}},
    "slipped decimal points wait for a decision": {
        "policies": {"prices": {"max_decrease_percent": 80, "actions": {"decimal_shift": "hold"}}}
    },
    "limits and policies back to their defaults": {"limits": None, "policies": None},
}
_NEW_KEYS: Final = {"one more": {}, "in place of the others, which end in a day": {"grace_seconds": 86400}}
_LOCATION: Final = ("Location", "Cache-Control")
ADMIN: Final = {
    f"POST {admin.BASE}": Operation(
        "make_tenant",
        "Admin",
        taken=Taken("The tenant.", {JSON: Content(admin.NewTenant, _NEW_TENANT)}),
        answers={201: Said("The tenant and its first key.", {JSON: Content(admin.MadeTenant)}, _LOCATION)},
        codes=(*_CHANGE, *_CHECKED, "tenant_exists"),
        security=_TOKEN,
    ),
    f"GET {admin.BASE}": Operation(
        "list_tenants",
        "Admin",
        parameters=("limit", "cursor"),
        answers={200: Said("A page.", {JSON: Content(admin.TenantPage)})},
        codes=(*_ADMIN, "bad_parameter"),
        security=_TOKEN,
    ),
    f"GET {admin.BASE}/{{tenant_id}}": Operation(
        "show_tenant",
        "Admin",
        answers={200: Said("The tenant.", {JSON: Content(admin.ShownTenant)})},
        codes=(*_ADMIN, "unknown_tenant", "not_found"),
        security=_TOKEN,
    ),
    f"PATCH {admin.BASE}/{{tenant_id}}": Operation(
        "change_tenant",
        "Admin",
        taken=Taken("The changes.", {JSON: Content(admin.Changes, _CHANGES)}, required=False),
        answers={200: Said("The tenant as it is now.", {JSON: Content(admin.ShownTenant)})},
        codes=(*_CHANGE, *_CHECKED, "unknown_tenant", "not_found"),
        security=_TOKEN,
    ),
    f"POST {admin.BASE}/{{tenant_id}}/keys": Operation(
        "make_key",
        "Admin",
        taken=Taken("The key.", {JSON: Content(admin.NewKey, _NEW_KEYS)}, required=False),
        answers={201: Said("The key.", {JSON: Content(admin.ShownApiKey)}, _LOCATION)},
        codes=(*_CHANGE, "bad_grace", "too_many_keys", "unknown_tenant", "not_found"),
        security=_TOKEN,
    ),
    f"DELETE {admin.BASE}/{{tenant_id}}/keys/{{key_id}}": Operation(
        "end_key",
        "Admin",
        answers={200: Said("The tenant; the key stays listed.", {JSON: Content(admin.ShownTenant)})},
        codes=(*_ADMIN, "kafka_unavailable", "unknown_tenant", "unknown_key", "not_found"),
        security=_TOKEN,
    ),
}

_TEXT: Final = {"text/plain": Content()}
_CACHING: Final = ("ETag", "Cache-Control")
_OF_PAGE: Final = (*_CACHING, "Content-Security-Policy", "Referrer-Policy", "X-Content-Type-Options")
_UNCHANGED: Final = "If-None-Match names what the client has."
ABOUT: Final = {
    "GET /healthz": Operation("healthz", "Health", {200: Said("It lives.", _TEXT)}, ANY_CODE),
    "GET /readyz": Operation(
        "readyz",
        "Health",
        {
            200: Said("Ready.", {JSON: Content(health.Readiness)}),
            503: Said("Not ready.", {JSON: Content(health.Readiness)}),
        },
        ANY_CODE,
    ),
    "GET /metrics": Operation("metrics", "Health", {200: Said("Prometheus's text format.", _TEXT)}, ANY_CODE),
    f"GET {schema_pages.DOCUMENT}": Operation(
        "openapi_document",
        "Schema",
        {200: Said("OpenAPI 3.1.", {JSON: Content(dict[str, Any])}, _CACHING), 304: Said(_UNCHANGED, {}, _CACHING)},
        ANY_CODE,
        parameters=("If-None-Match",),
    ),
    f"GET {schema_pages.SWAGGER_UI}": Operation(
        "swagger_ui",
        "Schema",
        {200: Said("The page.", {"text/html": Content()}, _OF_PAGE), 304: Said(_UNCHANGED, {}, _OF_PAGE)},
        ANY_CODE,
        parameters=("If-None-Match",),
    ),
    f"GET {console.PAGE}": Operation(
        "console",
        "Console",
        {200: Said("The page.", {"text/html": Content()}, _OF_PAGE), 304: Said(_UNCHANGED, {}, _OF_PAGE)},
        ANY_CODE,
        parameters=("If-None-Match",),
    ),
    f"GET {console.PAGE}{{asset}}": Operation(
        "console_file",
        "Console",
        {
            200: Said("The file.", {kind: Content() for kind in ("text/javascript", "text/css")}, _OF_PAGE),
            304: Said(_UNCHANGED, {}, _OF_PAGE),
        },
        (*ANY_CODE, "not_found"),
        parameters=("If-None-Match",),
    ),
    f"GET {schema_pages.SWAGGER_UI}{{file}}": Operation(
        "swagger_ui_file",
        "Schema",
        {
            200: Said(
                "The file.", {kind: Content() for kind in ("text/javascript", "text/css", "image/png")}, _OF_PAGE
            ),
            304: Said(_UNCHANGED, {}, _OF_PAGE),
        },
        (*ANY_CODE, "not_found"),
        parameters=("If-None-Match",),
    ),
}

OPERATIONS: Final[dict[str, Operation]] = {
    **{f"POST {TENANT}/ingest/{entity}": _ingest(entity) for entity in ENTITIES},
    **UPLOADS,
    **STOCK,
    **PRICES,
    **READS,
    **activity.OPERATIONS,
    **FIGURES,
    **EXPORTS,
    **ADMIN,
    **ABOUT,
}
"""By method and path, as OpenAPI writes paths."""
