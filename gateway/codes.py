"""Every `code` that a problem can have, by status, and what it means. A code never changes its meaning."""

from typing import Final

CODES: Final = {
    400: {
        "bad_chunk_number": "The chunk's number is outside the range.",
        "bad_document": "The JSON body is not what this path takes.",
        "bad_filter": "A filter is none of the kind's, or has a value that it does not take.",
        "bad_idempotency_key": "The Idempotency-Key is too long, or has characters that it may not have.",
        "bad_parameter": "A query parameter has a value that it does not take.",
        "broken_encoding": "The body is not valid gzip or zstd, or ends early.",
        "empty_body": "The body has no row.",
        "malformed_json": "The body is not one JSON object.",
        "malformed_request": "The request is not HTTP.",
    },
    401: {
        "invalid_key": "The API key is not known.",
        "missing_admin_token": "The request carries no admin token.",
        "missing_key": "The request carries no API key.",
        "revoked_key": "The API key was revoked, or has expired.",
        "wrong_admin_token": "The admin token is another.",
    },
    403: {
        "admin_off": "This gateway has no admin token, so that its admin API is off.",
        "wrong_tenant": "The API key belongs to another tenant than the path names.",
    },
    404: {
        "not_found": "There is nothing at this path.",
        "unknown_event": "No gateway made this event id for this tenant, and it is not in the ledger.",
        "unknown_export": "No gateway made this export's id for this tenant.",
        "unknown_key": "The tenant has no key with this id.",
        "unknown_tenant": "The tenant does not exist.",
        "unknown_upload": "The upload token was not made here, or is not whole.",
    },
    405: {
        "method_not_allowed": "The path does not take this method; Allow says which it takes.",
    },
    406: {
        "not_acceptable": "Accept leaves none of the media types that there are.",
    },
    408: {
        "body_too_slow": "The body did not arrive in time.",
    },
    409: {
        "chunk_conflict": "The chunk came before, with other content.",
        "chunk_out_of_range": "The upload was completed with fewer chunks.",
        "export_failed": "The export failed: there is no file.",
        "export_not_done": "The export's file is not written yet.",
        "tenant_exists": "The tenant exists already.",
        "too_few_chunks": "A chunk with a higher number has come.",
        "too_many_keys": "The tenant has as many keys as it may have.",
        "upload_cancelled": "The upload was cancelled.",
        "upload_completed": "The upload was completed with another number of chunks.",
    },
    410: {
        "export_cancelled": "The export was cancelled.",
        "export_expired": "The export's file has been removed.",
        "file_gone": "The export's file is not in its store any more.",
        "upload_expired": "The upload's time is over; what was applied stays.",
    },
    412: {
        "other_file": "If-Match names another file than there is.",
    },
    413: {
        "body_too_large": "The body has too many bytes, perhaps only after decompression.",
        "message_too_large": "A part of the body fits no message.",
        "too_many_lines": "The body has too many lines.",
        "too_many_rows": "The body must fit one message: with on_error=reject, or where it is movements of stock.",
    },
    415: {
        "unknown_media_type": "The body's Content-Type is CSV, a form, or another that is neither NDJSON nor JSON.",
        "unknown_encoding": "The body's Content-Encoding is none of gzip, zstd, identity.",
    },
    416: {
        "range_not_satisfiable": "The file has no such range.",
    },
    422: {
        "bad_body": "A field of the body has the wrong type, or is unknown.",
        "bad_currency": "A currency is no ISO 4217 code.",
        "bad_grace": "grace_seconds is outside the range.",
        "bad_limit": "A limit is outside the range.",
        "bad_name": "The name is empty, too long, or not printable.",
        "bad_order_totals": "order_totals is none of its words.",
        "bad_price_rule": "An amount, an id or a text of limits or of a decision is none that there can be.",
        "bad_price_policy": "A number of a policy on prices is outside its range, or an action is none.",
        "bad_tenant_id": "A tenant id has 1 to 100 letters, digits and hyphens, no hyphen first.",
        "idempotency_key_reused": "The Idempotency-Key came before, with another request.",
        "rows_rejected": "No row is right; `errors` says what is wrong with each.",
    },
    429: {
        "too_many_exports": "As many exports of the tenant are open as may be.",
        "rate_limited": "Too many single events a minute; wait for Retry-After, or send many rows as one NDJSON body.",
    },
    431: {
        "headers_too_large": "The request's headers have too many bytes together.",
    },
    500: {
        "internal_error": "A fault of ours; send it again with the same Idempotency-Key.",
    },
    503: {
        "kafka_unavailable": "Kafka did not acknowledge: whether it was taken is unknown. Send it again, under the same"
        " Idempotency-Key where there is one.",
        "file_unavailable": "The store of exports' files cannot be read.",
        "overloaded": "Too many bytes are being taken in right now.",
        "reads_unavailable": "PostgreSQL does not answer, or not in time beside other reads.",
        "too_many_streams": "Too many answers are being streamed right now.",
        "tenants_not_loaded": "The gateway has just started and still reads the list of tenants.",
    },
}  # fmt: skip

STATUS_OF: Final = {code: status for status, codes in CODES.items() for code in codes}
RETRIABLE: Final = frozenset({408, 429, 500, 503})
"""Statuses whose problems carry Retry-After."""
