"""Resumable uploads: POST /uploads, PUT chunks in any order and again, POST complete; GET state and errors; DELETE.

The token is signed and says all that a gateway must know, which writes no table: what it knows of an upload's progress
it reads from the ledger, and what counts is ruled by log order in the streams (DESIGN §4.10).
"""

import hashlib
import time
import uuid
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from gateway import bodies, idempotency, upload_state
from gateway.database import Database
from gateway.idempotency import OtherBody
from gateway.ingest import json_body
from gateway.problems import Problem, json
from gateway.publishing import Answer, Body, Publishing, publish_one, unavailable
from gateway.tenants import authenticated
from gateway.upload_state import DATE_TIME
from gateway.upload_token import Token
from producers.tenants import Tenant
from schemas import envelope
from schemas.errors import Unavailable
from schemas.rows import ENTITIES

MAX_CHUNKS: Final = 1_000_000
_LONGEST_S: Final = 3 * 86_400
"""How long an upload may take; well within the seven days for which the streams remember it."""


class Opening(Struct, forbid_unknown_fields=True):
    """An upload to be opened."""

    entity: Literal["customers", "products", "orders"]
    name: Annotated[str, Meta(max_length=200, pattern="^[^\\x00]*$")] | None = None  # PostgreSQL holds no NUL
    chunks: (
        Annotated[int, Meta(ge=1, le=MAX_CHUNKS, description="How many are meant to come; what complete says counts.")]
        | None
    ) = None
    expires_in_s: Annotated[int, Meta(ge=1, le=_LONGEST_S)] = _LONGEST_S


class Completion(Struct, forbid_unknown_fields=True):
    """How many chunks there are, numbered from 1."""

    chunks: Annotated[int, Meta(ge=1, le=MAX_CHUNKS)]


class Opened(Struct):
    """An upload, and the token under which its chunks come."""

    upload_id: str
    token: str
    entity: str
    state: Annotated[
        Literal["open", "cancelled", "expired"], Meta(description="Not open only where an earlier opening comes again.")
    ]
    expires_at: Annotated[str, Meta(description="Later chunks are refused.", extra_json_schema=DATE_TIME)]
    max_chunk_bytes: Annotated[int, Meta(description="After decompression.")]


class TakenChunk(Answer, kw_only=True):
    """What became of the rows of a chunk."""

    chunk: int


async def open_upload(request: Request) -> Response:
    """Open an upload.

    The token in the answer is part of the paths of all that follows. Chunks may come in any order, in parallel, and
    again; say at the end how many there are.
    """
    key = request.state.idempotency_key = idempotency.key_of(request)
    tenant = authenticated(request)
    opening, body = await json_body(request, tenant, Opening)
    # Another body under the key is another upload, which the streams do not open: no chunk of it counts.
    upload_id = envelope.request_id(tenant.tenant_id, "uploads", f"{key}\n{body}")
    opening_id = envelope.request_id(tenant.tenant_id, envelope.UPLOAD_OPENED, key)
    origin = envelope.Request(opening_id, 1, 1, 1, upload_id)
    headers = {"Idempotency-Key": key}
    known = None
    if idempotency.was_given(request):
        known = await _opened_before(request.state.database, tenant, origin, upload_id, body)
    if known is not None:
        token = Token(upload_id, known.entity, known.opened_us, known.expires_us)
        headers["Idempotent-Replayed"] = "true"
    else:
        now_us = time.time_ns() // 1000
        token = Token(upload_id, opening.entity, now_us, now_us + opening.expires_in_s * 1_000_000)
        record = {
            "tenant_id": tenant.tenant_id,
            "upload_id": str(upload_id),
            "entity": opening.entity,
            "name": opening.name,
            "chunks": opening.chunks,
            "opened_at": token.opened_us,
            "expires_at": token.expires_us,
        }
        await publish_one(request, tenant.tenant_id, envelope.UPLOAD_OPENED, origin, record, body)
    said = Opened(
        upload_id=str(upload_id),
        token=token.sign(request.state.settings.secret, tenant.tenant_id),
        entity=token.entity,
        state="cancelled" if known is not None and known.cancelled else "expired" if token.expired else "open",
        expires_at=upload_state.rfc3339(token.expires_us),
        max_chunk_bytes=request.state.settings.max_body_bytes,
    )
    return json(201, said, headers)


async def _opened_before(
    database: Database, tenant: Tenant, origin: envelope.Request, upload_id: uuid.UUID, body: str
) -> upload_state.Known | None:
    """The upload that was opened under this key. Raises OtherBody when it was another."""
    try:
        async with database.transaction(tenant.tenant_id) as db:
            await idempotency.must_be_same(db, tenant.tenant_id, origin, hashlib.sha256(body.encode()).hexdigest())
            return await upload_state.look_up(db, tenant.tenant_id, upload_id)
    except Unavailable:
        return None


async def put_chunk(request: Request) -> Response:
    """Send a chunk of rows, numbered from 1.

    202 once Kafka has acknowledged; the same chunk again gets the same answer. A chunk never changes.
    """
    tenant = authenticated(request)
    token = token_of(request, tenant)
    number = _number(request.path_params["n"])
    _must_run(token)
    if not request.state.kafka.reachable:
        raise unavailable("Kafka is away")
    state, database = request.state, request.state.database
    raw = await bodies.read(request, tenant.tenant_id, state.settings, state.inflight)
    try:
        bodies.must_be_rows(request, raw)
        body = Body(raw)
        id_ = envelope.request_id(tenant.tenant_id, "uploads", f"{token.upload_id}/{number}")
        origin = envelope.Request(id_, 1, body.lines, body.lines, token.upload_id, number)
        headers = {}
        answer = await _taken_before(database, tenant, token, origin, body)
        if answer is not None:
            headers["Idempotent-Replayed"] = "true"
        else:
            publishing = Publishing(request, tenant, ENTITIES[token.entity], origin, body.hash)
            answer = await publishing.publish(body)
        return json(202, TakenChunk(**msgspec.structs.asdict(answer), chunk=number), headers)
    finally:
        state.inflight.give_back(tenant.tenant_id, len(raw))


async def _taken_before(
    database: Database, tenant: Tenant, token: Token, origin: envelope.Request, body: Body
) -> Answer | None:
    """The answer to a chunk that is in the ledger. Raises Problem 409 for one that would be rejected."""
    try:
        async with database.transaction(tenant.tenant_id) as db:
            answer = await idempotency.look_up(db, tenant.tenant_id, origin, body)
            known = await upload_state.look_up(db, tenant.tenant_id, token.upload_id)
    except Unavailable:
        return None
    except OtherBody as exc:
        detail = f"chunk {origin.chunk} came with other content; a chunk never changes"
        raise Problem(409, "chunk_conflict", detail) from exc
    if answer is None and known is not None:
        known.must_take(origin.chunk)
    return answer


async def complete_upload(request: Request) -> Response:
    """Say how many chunks there are.

    202 with the upload's state. Chunks that are missing may still come, others are refused.
    """
    tenant = authenticated(request)
    token = token_of(request, tenant)
    completion, _ = await json_body(request, tenant, Completion)
    _must_run(token)
    await upload_state.must_complete(request.state.database, tenant.tenant_id, token.upload_id, completion.chunks)
    record = {
        "tenant_id": tenant.tenant_id,
        "upload_id": str(token.upload_id),
        "chunks": completion.chunks,
        "completed_at": time.time_ns() // 1000,
    }
    same = str(completion.chunks)
    await _publish(request, tenant, envelope.UPLOAD_COMPLETED, token.upload_id, record, same, completion.chunks)
    return await _state(request, tenant, token, 202, completed_with=completion.chunks)


async def cancel_upload(request: Request) -> Response:
    """Cancel an upload.

    202 with its state. No chunk counts from here on; what was applied stays.
    """
    tenant = authenticated(request)
    token = token_of(request, tenant)
    record = {
        "tenant_id": tenant.tenant_id,
        "upload_id": str(token.upload_id),
        "cancelled_at": time.time_ns() // 1000,
    }
    await _publish(request, tenant, envelope.UPLOAD_CANCELLED, token.upload_id, record, "cancel")
    return await _state(request, tenant, token, 202, cancelled=True)


async def get_upload(request: Request) -> Response:
    """See how far an upload is.

    Its state, chunks applied and missing, rows by outcome, and when it may be done.
    """
    tenant = authenticated(request)
    return await _state(request, tenant, token_of(request, tenant), 200)


async def get_errors(request: Request) -> Response:
    """List the rows of an upload that were refused.

    As NDJSON, by chunk and line: what is wrong with each, and the row itself.
    """
    tenant = authenticated(request)
    token = token_of(request, tenant)
    pages = upload_state.errors(request.state.database, tenant.tenant_id, token.upload_id)
    first = await anext(pages, b"")  # what fails, fails before the answer begins

    async def lines() -> Any:
        yield first
        async for page in pages:
            yield page

    return StreamingResponse(lines(), media_type="application/x-ndjson")


async def _state(
    request: Request,
    tenant: Tenant,
    token: Token,
    status: int,
    *,
    completed_with: int | None = None,
    cancelled: bool = False,
) -> Response:
    """The state document; what this request has just said counts before the ledger knows it."""
    database = request.state.database
    state = await upload_state.read(database, tenant.tenant_id, token, completed_with, cancelled)
    return json(status, state)


async def _publish(
    request: Request,
    tenant: Tenant,
    type_: str,
    upload_id: uuid.UUID,
    record: dict[str, Any],
    content: str,
    chunks: int = 0,
) -> None:
    """Publish one word about an upload; said twice with the same content, it counts once."""
    id_ = envelope.request_id(tenant.tenant_id, type_, str(upload_id))
    await publish_one(
        request, tenant.tenant_id, type_, envelope.Request(id_, 1, 1, 1, upload_id, chunks), record, content
    )


def token_of(request: Request, tenant: Tenant) -> Token:
    """What the token in the path says. Raises Problem 404."""
    token = Token.read(request.state.settings.secret, tenant.tenant_id, request.path_params["token"])
    if token is None:
        raise Problem(
            404, "unknown_upload", "this upload token was not made here, or is not whole; open an upload first"
        )
    return token


def _number(text: str) -> int:
    """A chunk's number. Read here, since a route's own `int` fails on thousands of digits."""
    if not (text.isascii() and text.isdigit()):
        raise Problem(404, "not_found", "there is nothing at this path")
    if text.startswith("0") or len(text) > 15 or int(text) > MAX_CHUNKS:  # 01 is no second name of chunk 1
        raise Problem(400, "bad_chunk_number", f"chunks are numbered from 1 to {MAX_CHUNKS}, not {text[:40]!r}")
    return int(text)


def _must_run(token: Token) -> None:
    if token.expired:
        raise Problem(
            410, "upload_expired", "the upload's time is over; what was applied stays. Open another for the rest"
        )
