"""Exports: POST asks for a file of records with a message, which a sink writes; GET says how far it is.

The id is made of the Idempotency-Key, as an event's: an export that no sink has taken up yet is known by it.
"""

import hashlib
import time
from datetime import datetime
from typing import Annotated, Final, Literal
from uuid import UUID

from msgspec import UNSET, Meta, Struct, UnsetType
from psycopg.rows import class_row
from starlette.requests import Request
from starlette.responses import Response

from gateway import filters, idempotency, traces
from gateway.database import Db, reading
from gateway.ingest import json_body
from gateway.problems import Problem, json
from gateway.publishing import unavailable
from gateway.tenants import authenticated
from gateway.upload_state import DATE_TIME
from producers import stored
from schemas import codec, envelope, topics
from schemas.errors import Rejected, Unavailable
from schemas.exports import EXPORT_CANCELLED, EXPORT_REQUESTED, MAX_OPEN
from schemas.stock import MAX_QUANTITY

State = Literal["queued", "running", "done", "failed", "cancelled", "expired"]
_NOT_CACHED: Final = {"Cache-Control": "no-store"}
_MOST: Final = 100
_COLUMNS: Final = """
SELECT export_id, entity, format, gzip, filters, attempt, reason, rows_done, rows_total, bytes, sha256,
       requested_at, started_at, finished_at, expires_at, now() AS at,
       CASE WHEN state = 'done' AND expires_at <= now() THEN 'expired' ELSE state END AS state
FROM exports WHERE tenant_id = %s
"""
_ONE: Final = _COLUMNS + "AND export_id = %s"
_NEWEST: Final = _COLUMNS + "ORDER BY requested_at DESC, export_id DESC LIMIT %s"
_OPEN: Final = "SELECT count(*) FROM exports WHERE tenant_id = %s AND state IN ('queued', 'running')"
_Quantity = Annotated[int, Meta(ge=-MAX_QUANTITY, le=MAX_QUANTITY)]


class ExportRequest(Struct, forbid_unknown_fields=True):
    """What is to be exported, and how."""

    entity: Literal["customers", "products", "orders", "stock"]
    format: Literal["csv", "ndjson"]
    filters: Annotated[
        dict[str, str | bool | _Quantity | list[str]],
        Meta(description="As the parameters of the list of that kind take them."),
    ] = {}
    gzip: Annotated[bool, Meta(description="A file that is compressed, as such.")] = False

    def pairs(self) -> list[tuple[str, str]]:
        """The filters as names and texts, checked. Raises Problem 400 that says what there is."""
        pairs = []
        for name, value in self.filters.items():
            texts = value if isinstance(value, list) else [value if isinstance(value, str) else str(value).lower()]
            if not texts:
                raise Problem(400, "bad_filter", f"{name[:100]} has no value: leave it out, or give it one")
            if too_long := next((text for text in texts if len(text) > stored.MAX_TEXT), None):
                detail = f"{name[:100]} has a value of {len(too_long)} characters; {stored.MAX_TEXT} at most"
                raise Problem(400, "bad_filter", detail)
            pairs += [(name, text) for text in texts]
        if len(pairs) > stored.MAX_FILTERS:
            raise Problem(400, "bad_filter", f"there are {len(pairs)} values; {stored.MAX_FILTERS} at most")
        try:
            stored.values(self.entity, pairs)
        except Rejected as exc:
            raise Problem(400, "bad_filter", exc.detail) from exc
        return pairs


_DateTime = Annotated[str, Meta(extra_json_schema=DATE_TIME)]


class ExportState(Struct):
    """How far an export is. Of one that no sink has taken up yet, its id and its state alone are known."""

    export_id: str
    state: State
    entity: str | UnsetType = UNSET
    format: str | UnsetType = UNSET
    gzip: bool | UnsetType = UNSET
    filters: dict[str, list[str]] | UnsetType = UNSET
    rows_done: int | UnsetType = UNSET
    rows_total: Annotated[int | None, Meta(description="Null until they are counted.")] | UnsetType = UNSET
    percent: float | UnsetType | None = UNSET
    eta_s: Annotated[int | None, Meta(description="Seconds; null where it cannot be said.")] | UnsetType = UNSET
    attempts: Annotated[int, Meta(description="It is begun anew where its writer was killed.")] | UnsetType = UNSET
    reason: Annotated[str | None, Meta(description="Why it failed.")] | UnsetType = UNSET
    bytes: Annotated[int | None, Meta(description="Of the file.")] | UnsetType = UNSET
    sha256: Annotated[str | None, Meta(description="Of the file, hexadecimal.")] | UnsetType = UNSET
    requested_at: _DateTime | UnsetType = UNSET
    finished_at: _DateTime | UnsetType | None = UNSET
    expires_at: Annotated[_DateTime | None, Meta(description="The file goes then.")] | UnsetType = UNSET


class ExportList(Struct):
    """Exports, the newest first, 100 at most."""

    data: list[ExportState]


class Row(Struct):
    """A row of the table `exports`, and when it was read."""

    export_id: UUID
    entity: str
    format: str
    gzip: bool
    filters: list[list[str]]
    state: State
    attempt: int
    reason: str | None
    rows_done: int
    rows_total: int | None
    bytes: int | None
    sha256: str | None
    requested_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime | None
    at: datetime

    def shown(self) -> ExportState:
        """As it is answered."""
        named: dict[str, list[str]] = {}
        for name, value in self.filters:
            named.setdefault(name, []).append(value)
        total, done, percent, eta = self.rows_total, self.rows_done, None, None
        if total is not None:
            percent = round(100 * done / total, 1) if total else 100.0
        if self.state == "running" and self.started_at and total and done:
            eta = round((self.at - self.started_at).total_seconds() * (total - done) / done)
        return ExportState(
            str(self.export_id), self.state, self.entity, self.format, self.gzip, named, done, total, percent, eta,
            self.attempt, self.reason, self.bytes, self.sha256, _text(self.requested_at), _moment(self.finished_at),
            _moment(self.expires_at),
        )  # fmt: skip


async def create_export(request: Request) -> Response:
    """Ask for an export of records to a file.

    202 once Kafka has acknowledged; a sink writes the file, and GET on its path says how far it is.
    """
    key = request.state.idempotency_key = idempotency.key_of(request)
    tenant = authenticated(request)
    filters.none(request.query_params)
    asked, _ = await json_body(request, tenant, ExportRequest)
    pairs = asked.pairs()
    secret, tenant_id = request.state.settings.secret, tenant.tenant_id
    request_id = envelope.request_id(tenant_id, "exports", key)
    export_id = envelope.event_id(secret, tenant_id, request_id, "export")
    headers = {"Idempotency-Key": key, "Location": f"/api/v1/tenants/{tenant_id}/exports/{export_id}", **_NOT_CACHED}
    try:
        async with request.state.database.transaction(tenant_id) as db:
            known = await one(db, tenant_id, export_id)
            if known is not None:
                same = (known.entity, known.format, known.gzip) == (asked.entity, asked.format, asked.gzip)
                if not same or [tuple(pair) for pair in known.filters] != pairs:
                    raise idempotency.OtherBody
                return json(202, known.shown(), headers | {"Idempotent-Replayed": "true"})
            await _must_have_room(db, tenant_id)
    except Unavailable:  # the sink looks once more
        pass
    record = {
        "tenant_id": tenant_id,
        "export_id": export_id,
        "entity": asked.entity,
        "format": asked.format,
        "gzip": asked.gzip,
        "requested_at": time.time_ns() // 1000,
        "filters": [{"name": name, "value": value} for name, value in pairs],
    }
    await _publish(request, tenant_id, export_id, EXPORT_REQUESTED, record)
    return json(202, ExportState(export_id, "queued"), headers)


async def list_exports(request: Request) -> Response:
    """List exports, the newest first, 100 at most."""
    tenant_id = authenticated(request).tenant_id
    filters.none(request.query_params)
    async with reading(request, tenant_id) as db:
        found = await (await db.cursor(row_factory=class_row(Row)).execute(_NEWEST, [tenant_id, _MOST])).fetchall()
    return json(200, ExportList([row.shown() for row in found]), _NOT_CACHED)


async def show_export(request: Request) -> Response:
    """See how far an export is."""
    tenant_id = authenticated(request).tenant_id
    filters.none(request.query_params)
    known = await asked_for(request, tenant_id)
    return json(200, known if isinstance(known, ExportState) else known.shown(), _NOT_CACHED)


async def cancel_export(request: Request) -> Response:
    """Cancel an export that waits or runs, or remove the file of one that is done.

    202 once Kafka has acknowledged, with the state that a sink brings about.
    """
    tenant_id = authenticated(request).tenant_id
    filters.none(request.query_params)
    known = await asked_for(request, tenant_id)
    shown = known.shown() if isinstance(known, Row) else known
    if shown.state in ("queued", "running", "done"):
        record = {"tenant_id": tenant_id, "export_id": shown.export_id, "cancelled_at": time.time_ns() // 1000}
        event_id = envelope.event_id(request.state.settings.secret, tenant_id, UUID(shown.export_id), "cancel")
        await _publish(request, tenant_id, event_id, EXPORT_CANCELLED, record)
        shown.state = "expired" if shown.state == "done" else "cancelled"
    return json(202, shown, _NOT_CACHED)


async def asked_for(request: Request, tenant_id: str) -> Row | ExportState:
    """The export in the path; a state alone while no sink has taken it up. Raises Problem 404, 503."""
    export_id = request.path_params["export_id"]
    if _is_uuid(export_id):
        async with reading(request, tenant_id) as db:
            known = await one(db, tenant_id, export_id)
        if known is not None:
            return known
        if envelope.issued(request.state.settings.secret, tenant_id, export_id):
            return ExportState(export_id, "queued")
    raise Problem(404, "unknown_export", "no gateway made this export's id for this tenant")


async def one(db: Db, tenant_id: str, export_id: str) -> Row | None:
    """An export of the tenant by its id."""
    return await (await db.cursor(row_factory=class_row(Row)).execute(_ONE, [tenant_id, export_id])).fetchone()


async def _must_have_room(db: Db, tenant_id: str) -> None:
    found = await (await db.execute(_OPEN, [tenant_id])).fetchone()
    assert found is not None
    if found[0] >= MAX_OPEN:
        detail = f"{MAX_OPEN} exports of this tenant are open, as many as may be; ask again when one has ended"
        raise Problem(429, "too_many_exports", detail, retry_after=5)


async def _publish(request: Request, tenant_id: str, event_id: str, type_: str, record: codec.Record) -> None:
    """Return once Kafka has acknowledged. Raises Problem 503 for an unknown outcome."""
    state, value = request.state, codec.encode(type_, record)
    headers = envelope.headers_of(
        event_id=event_id,
        type=type_,
        source="gateway",
        accepted_ms=time.time_ns() // 1_000_000,
        rows=0,
        value=value,
        traceparent=(traceparent := traces.traceparent(request.scope)),
        body_hash=hashlib.sha256(value).hexdigest(),
    )
    topic = state.settings.named(topics.EXPORTS)
    try:
        sent = state.producer.send(topic, topics.partition_key(tenant_id), value, headers)
        await traces.follow(sent, traceparent, topic, event_id, tenant_id)
    except Unavailable as exc:
        raise unavailable(str(exc)) from exc


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def _moment(at: datetime | None) -> str | None:
    return None if at is None else _text(at)


def _text(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
