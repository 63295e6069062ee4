"""The envelope of a message: Kafka headers in CloudEvents 1.0 binary mode, plus our own `ts-` headers.

Dedup, ledger and routing read headers only, never the value. Sources:
CloudEvents 1.0.2 and its Kafka protocol binding 1.0.2 (section 3.2, binary content mode).
"""

import hashlib
import hmac
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from schemas import header_values
from schemas.errors import Rejected, Undecodable
from schemas.ids import uuid5
from schemas.origin import NAMESPACE as NAMESPACE
from schemas.origin import Headers as Headers
from schemas.origin import Position as Position
from schemas.origin import Redrive as Redrive
from schemas.origin import Request as Request
from schemas.origin import redrive_in, request_in

_NAMESPACE: Final = NAMESPACE.bytes
CONTENT_TYPE: Final = b"application/avro"
_SPECVERSION: Final = ("ce_specversion", b"1.0")
_AVRO: Final = ("content-type", CONTENT_TYPE)
_GATEWAY: Final = ("ce_source", b"gateway")
_ONE_ROW: Final = ("ts-rows", b"1")
_ONE_LINE: Final = ("ts-lines", b"1-1/1")
BATCH_TYPES: Final = frozenset(f"tillstream.{entity}.v1" for entity in ("customers", "products", "orders"))
ROWS_REJECTED: Final = "tillstream.rows-rejected.v1"
UPLOAD_OPENED: Final = "tillstream.upload-opened.v1"
UPLOAD_COMPLETED: Final = "tillstream.upload-completed.v1"
UPLOAD_CANCELLED: Final = "tillstream.upload-cancelled.v1"
INGESTION_POLICY: Final = "tillstream.ingestion-policy.v1"
INGESTION_TYPES: Final = BATCH_TYPES | {
    ROWS_REJECTED, UPLOAD_OPENED, UPLOAD_COMPLETED, UPLOAD_CANCELLED, INGESTION_POLICY,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Envelope:
    """What the headers of a message say.

    `rows` is the sender's own count (0 when it sent none; sinks recount), `content_hash` 32 bytes of SHA-256 of the
    value, or of the whole body where `request` is known, `accepted_ms` the sender's clock in Unix milliseconds,
    `trimmed` the rows that streams took out of a forwarded message because they had come before.
    """

    event_id: str
    type: str
    source: str
    accepted_ms: int
    rows: int
    content_hash: bytes
    src: Position
    traceparent: bytes | None = None
    request: Request | None = None
    trimmed: int = 0
    redrive: Redrive | None = None

    @property
    def entity(self) -> str:
        """`orders` for the type `tillstream.orders.v1`."""
        return self.type.split(".")[1]

    @property
    def first_ms(self) -> int:
        """When the log first took these rows, in Unix milliseconds: no version of them is newer.

        Whatever a stranger says in `ts-redrive-of` can make rows older only.
        """
        return self.src.time_ms if self.redrive is None else min(self.redrive.of.time_ms, self.src.time_ms)

    @property
    def first_offset(self) -> int:
        """The source offset at which these rows came first, maybe of another partition: it only settles ties."""
        return self.src.offset if self.redrive is None else self.redrive.of.offset

    def first_index(self, place: int) -> int:
        """The index that the row at `place` had in the message it came in first."""
        return self.redrive.rows[place] if self.redrive and self.redrive.rows else place

    def place_of(self, first_index: int) -> int:
        """The reverse of `first_index`."""
        return self.redrive.rows.index(first_index) if self.redrive and self.redrive.rows else first_index


def tenant_text(key: bytes | None) -> str:
    """A key as text for people and tables, whatever a stranger put into it."""
    return (key or b"").decode(errors="replace").replace("\x00", "\ufffd")[:100]


def request_id(tenant_id: str, route: str, idempotency_key: str) -> uuid.UUID:
    """UUIDv5 of a POST under its Idempotency-Key, or of a chunk under its upload's id and number."""
    return uuid.UUID(bytes=_request_id(tenant_id, route, idempotency_key))


def event_id(secret: str, tenant_id: str, request: uuid.UUID, part: str) -> str:
    """UUIDv5 of a part of a request, such as lines `1-1000`; its last 4 bytes are a MAC by which `issued` knows it."""
    return _event_id(secret, tenant_id, request.bytes, part)


def ids_of_one_row(secret: str, tenant_id: str, route: str, idempotency_key: str) -> tuple[str, str]:
    """`request_id` of a POST and `event_id` of its only row, as text; in half the time, since it makes no UUID."""
    request = _request_id(tenant_id, route, idempotency_key)
    return _text_of(request), _event_id(secret, tenant_id, request, "1-1")


def issued(secret: str, tenant_id: str, event_id: str) -> bool:
    """Whether a gateway with this secret made this event id for this tenant."""
    try:
        raw = uuid.UUID(event_id).bytes
    except ValueError:
        return False
    return hmac.compare_digest(_mac(secret, tenant_id, raw[:12]), raw[12:])


def _request_id(tenant_id: str, route: str, idempotency_key: str) -> bytes:
    return uuid5(_NAMESPACE, f"{tenant_id}\n{route}\n{idempotency_key}".encode())


def _event_id(secret: str, tenant_id: str, request: bytes, part: str) -> str:
    head = uuid5(request, part.encode())[:12]
    return _text_of(head + _mac(secret, tenant_id, head))


def _text_of(raw: bytes) -> str:
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _mac(secret: str, tenant_id: str, head: bytes) -> bytes:
    mac = _keyed(secret).copy()
    mac.update(b"event\n" + tenant_id.encode() + b"\n" + head)
    return mac.digest()[:4]


@lru_cache(8)
def _keyed(secret: str) -> hmac.HMAC:
    return hmac.new(secret.encode(), digestmod="sha256")


def headers_of(
    *,
    event_id: str,
    type: str,
    source: str,
    accepted_ms: int,
    rows: int,
    value: bytes,
    traceparent: bytes | None,
    request: Request | None = None,
    body_hash: str | None = None,
    subject: str | None = None,
) -> Headers:
    """Headers for a new message; the hash is `body_hash` (hexadecimal), or else taken over the value.

    `subject` of an outcome is the id of the event that it is about.
    """
    headers = [
        _SPECVERSION,
        ("ce_id", event_id.encode()),
        ("ce_source", source.encode()),
        ("ce_type", type.encode()),
        ("ce_time", _rfc3339(accepted_ms)),
        _AVRO,
        ("ts-rows", b"%d" % rows),
        ("ts-hash", (body_hash or hashlib.sha256(value).hexdigest()).encode()),
    ]
    if request is not None:
        headers += request.headers()
    if subject is not None:
        headers.append(("ce_subject", subject.encode()))
    if traceparent is not None:
        headers.append(("traceparent", traceparent))
    return headers


def headers_of_one_row(
    event_id: str, type: str, accepted_ms: int, request: str, body_hash: str, traceparent: bytes | None
) -> Headers:
    """`headers_of` for the only row of a request to a gateway, in half the time; `request` is its id."""
    headers = [
        _SPECVERSION,
        ("ce_id", event_id.encode()),
        _GATEWAY,
        ("ce_type", type.encode()),
        ("ce_time", _rfc3339(accepted_ms)),
        _AVRO,
        _ONE_ROW,
        ("ts-hash", body_hash.encode()),
        ("ts-request", request.encode()),
        _ONE_LINE,
    ]
    if traceparent is not None:
        headers.append(("traceparent", traceparent))
    return headers


def read(headers: Iterable[tuple[str, bytes | None]] | None, value: bytes | None, at: Position) -> Envelope:
    """Read the headers of a message of a source topic that lies `at`; a `ts-src` in it is a stranger's and ignored.

    Raises Undecodable when `ce_type` is missing or a header is malformed.
    """
    found = {name: raw for name, raw in headers or () if raw is not None}
    found.pop("ts-trimmed", None)
    return _read(found, value, at)


def read_forwarded(headers: Iterable[tuple[str, bytes | None]] | None, value: bytes | None) -> Envelope:
    """Read the headers of a message that streams forwarded: `ts-src` says where its source lies. Errors as `read`."""
    found = {name: raw for name, raw in headers or () if raw is not None}
    if "ts-src" not in found:
        raise Undecodable("bad_header", "a forwarded message has no ts-src")
    return _read(found, value, Position.parse(found["ts-src"]))


def forwarded(
    headers: Iterable[tuple[str, bytes | None]] | None, envelope: Envelope, *, rows: int | None = None, trimmed: int = 0
) -> Headers:
    """Headers under which streams send a message on: the sender's own, its event id, and where it came from.

    `rows` are those that are left where `trimmed` had come before.
    """
    ours = {"ce_id": envelope.event_id.encode(), "ts-src": envelope.src.header()}
    if rows is not None:
        ours |= {"ts-rows": b"%d" % rows, "ts-trimmed": b"%d" % trimmed}
    kept = [
        (name, raw)
        for name, raw in headers or ()
        if raw is not None and name not in ours and name not in ("ts-src", "ts-trimmed")
    ]
    return [*kept, *ours.items()]


def dead_letter_headers(
    headers: Iterable[tuple[str, bytes | None]] | None, why: Rejected, step: str, at: Position
) -> Headers:
    """The original headers, and why, where and in which step the message was set aside."""
    return [
        *((name, raw) for name, raw in headers or () if raw is not None and not name.startswith("ts-dlq-")),
        ("ts-dlq-reason", why.code.encode()),
        ("ts-dlq-detail", why.detail.encode()[:500]),
        ("ts-dlq-step", step.encode()),
        ("ts-dlq-src", at.header()),
    ]


def _read(found: dict[str, bytes], value: bytes | None, src: Position) -> Envelope:
    type_ = header_values.text(found, "ce_type")
    if type_ is None:
        raise Undecodable("no_ce_type", "header ce_type is missing; see README, 'Produce directly'")
    return Envelope(
        event_id=header_values.text(found, "ce_id") or src.event_id(),
        type=type_,
        source=header_values.text(found, "ce_source") or "unknown",
        accepted_ms=header_values.unix_ms(found["ce_time"]) if "ce_time" in found else src.time_ms,
        rows=header_values.count(found.get("ts-rows", b"0")),
        content_hash=header_values.digest(found.get("ts-hash"), value),
        src=src,
        traceparent=found.get("traceparent"),
        request=request_in(found) if "ts-request" in found else None,
        trimmed=header_values.count(found.get("ts-trimmed", b"0")),
        redrive=redrive_in(found) if "ts-redrive-of" in found else None,
    )


def _rfc3339(unix_ms: int) -> bytes:
    return _second(unix_ms // 1000) + b".%03dZ" % (unix_ms % 1000)


@lru_cache(64)
def _second(unix_s: int) -> bytes:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()
