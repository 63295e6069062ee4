"""The operations on exports."""

from typing import Final

from gateway.downloads import GZIP
from gateway.exports import ExportList, ExportRequest, ExportState
from gateway.operation import (
    BODY_CODES,
    CSV,
    JSON,
    KEYS,
    NDJSON,
    TENANT,
    TENANT_CODES,
    Content,
    Operation,
    Said,
    Taken,
)
from gateway.parameters import IDEMPOTENCY_KEY, REPLAYED

_ONE: Final = f"{TENANT}/exports/{{export_id}}"
_READ: Final = (*TENANT_CODES, "bad_parameter", "reads_unavailable")
_FILE: Final = ("ETag", "Cache-Control", "Repr-Digest")
_BODY: Final = {kind: Content() for kind in (CSV, NDJSON, GZIP)}
_EXAMPLES: Final = {
    "all orders": {"entity": "orders", "format": "csv"},
    "paid and shipped ones of January": {
        "entity": "orders",
        "format": "ndjson",
        "gzip": True,
        "filters": {"status": ["paid", "shipped"], "from": "2026-01-01", "to": "2026-02-01"},
    },
    "what runs out": {"entity": "stock", "format": "csv", "filters": {"below": 5}},
}
EXPORTS: Final = {
    f"POST {TENANT}/exports": Operation(
        "create_export",
        "Exports",
        taken=Taken("What is to be exported.", {JSON: Content(ExportRequest, _EXAMPLES)}),
        parameters=(IDEMPOTENCY_KEY, "traceparent"),
        answers={
            202: Said(
                "Kafka has acknowledged; or, of a request that came before, how far it is.",
                {JSON: Content(ExportState)},
                (IDEMPOTENCY_KEY, "Location", "Cache-Control"),
            )
        },
        codes=(
            *TENANT_CODES, *BODY_CODES, "bad_parameter", "bad_document", "bad_filter", "bad_idempotency_key",
            "idempotency_key_reused", "kafka_unavailable", "too_many_exports",
        ),
        headers=(IDEMPOTENCY_KEY, REPLAYED),
        security=KEYS,
    ),
    f"GET {TENANT}/exports": Operation(
        "list_exports",
        "Exports",
        answers={200: Said("The newest.", {JSON: Content(ExportList)}, ("Cache-Control",))},
        codes=_READ,
        security=KEYS,
    ),
    f"GET {_ONE}": Operation(
        "show_export",
        "Exports",
        answers={200: Said("How far it is.", {JSON: Content(ExportState)}, ("Cache-Control",))},
        codes=(*_READ, "unknown_export"),
        security=KEYS,
    ),
    f"DELETE {_ONE}": Operation(
        "cancel_export",
        "Exports",
        answers={202: Said("Kafka has acknowledged; one that had ended without a file stays as it was.",
                           {JSON: Content(ExportState)}, ("Cache-Control",))},
        codes=(*_READ, "unknown_export", "kafka_unavailable"),
        security=KEYS,
    ),
    f"GET {_ONE}/file": Operation(
        "download_export",
        "Exports",
        parameters=(
            "Range", "If-Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since",
        ),
        answers={
            200: Said("The file.", _BODY, (*_FILE, "Accept-Ranges", "Content-Disposition", "Last-Modified")),
            206: Said(
                "A range of it; several as multipart/byteranges.",
                _BODY | {"multipart/byteranges": Content()},
                (*_FILE, "Accept-Ranges", "Content-Disposition", "Last-Modified"),
            ),
            304: Said("If-None-Match names what the client has.", {}, _FILE),
        },
        codes=(
            *_READ, "unknown_export", "export_cancelled", "export_expired", "export_failed", "export_not_done",
            "file_gone", "file_unavailable", "other_file", "range_not_satisfiable",
        ),
        headers=("Content-Range",),
        security=KEYS,
    ),
}  # fmt: skip
