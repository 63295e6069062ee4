"""POST /price-events and /products/{product_id}/price-event: changes of prices, checked line by line and published.

What is wrong with a line depends on the body alone, so that a first answer is made again of the body: the ledger needs
to know only that all of it has come. The messages of a body carry all its lines between them, the refused ones too.
"""

import asyncio
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gateway import bodies, idempotency, parse
from gateway.ingest import answered, choice, is_json, known_parameters
from gateway.measured import received
from gateway.price_messages import Message, media_type, product_of_path, published
from gateway.problems import Problem
from gateway.publishing import MAX_ERRORS, Answer, Body, unavailable
from gateway.tenants import authenticated
from producers.tenants import Tenant
from schemas import codec, envelope, topics
from schemas.price_events import PRICE

_PARAMETERS: Final = {"on_error", "validate_only"}
_HEAD_BYTES: Final = 500
"""Of a message's value, beyond its rows."""


async def price_events(request: Request) -> Response:
    """Send changes of prices: many as NDJSON, one as JSON.

    202 once Kafka has acknowledged the good ones; what is wrong with the others stands in `errors`. Changes of one
    tenant are judged in the order in which they are sent. Where Accept prefers NDJSON, lines say what became of each as
    soon as it is judged.
    """
    key = request.state.idempotency_key = idempotency.key_of(request)
    tenant = authenticated(request)
    single = is_json(request)
    if single:
        await request.state.limits.take(request, tenant)
    raw = await _body(request, tenant)
    try:
        if single:
            await request.state.limits.take_product(request, tenant, raw)
        return await _taken(request, tenant, Body(raw, single=single), key)
    finally:
        request.state.inflight.give_back(tenant.tenant_id, len(raw))


async def price_event(request: Request) -> Response:
    """Send a change of one product's price.

    202 once Kafka has acknowledged it; it is judged then. Where Accept prefers NDJSON, lines: the answer, the verdict,
    a summary.
    """
    key = request.state.idempotency_key = idempotency.key_of(request)
    product_id = product_of_path(request, b"price-event")
    tenant = authenticated(request)
    await request.state.limits.take(request, tenant)
    await request.state.limits.take_one(request, tenant, product_id)
    raw = await _body(request, tenant)
    try:
        return await _taken(request, tenant, Body(_with_product(raw, product_id), single=True), key)
    finally:
        request.state.inflight.give_back(tenant.tenant_id, len(raw))


async def _body(request: Request, tenant: Tenant) -> bytes:
    """The body, once the rest of the request is right; its bytes count as in flight."""
    known_parameters(request, _PARAMETERS)
    media_type(request)
    if not _dry(request) and not request.state.kafka.reachable:
        raise unavailable("Kafka is away")
    return await bodies.read(request, tenant.tenant_id, request.state.settings, request.state.inflight)


def _dry(request: Request) -> bool:
    return choice(request, "validate_only", ("false", "true")) == "true"


def _with_product(raw: bytes, product_id: str) -> bytes:
    """The document with the product of its path; one that is no object, or names another, is found wrong later."""
    try:
        fields = msgspec.json.decode(raw.removeprefix(b"\xef\xbb\xbf"), type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return raw
    named = msgspec.Raw(msgspec.json.encode(product_id))
    if fields.get("product_id", named) != named:
        raise Problem(400, "bad_document", "product_id is that of the path; leave it out of the body")
    return msgspec.json.encode({**fields, "product_id": named})


async def _taken(request: Request, tenant: Tenant, body: Body, key: str) -> Response:
    answer, messages = await _check(request, tenant, body, key)
    if _dry(request) or not messages:
        return answered(answer, {"Idempotency-Key": key}, dry=_dry(request))
    response = await published(request, tenant, answer, messages, body.hash)
    received(request, PRICE.name, "accepted", answer.accepted)
    return response


async def _check(request: Request, tenant: Tenant, body: Body, key: str) -> tuple[Answer, list[Message]]:
    """The answer, and the messages of the good lines. Raises Problem 413 for on_error=reject of several messages."""
    rows: list[parse.Row] = []
    answer = Answer([], 0, 0, [], 0)
    for part in body.parts:
        good, errors = await parse.parse(PRICE, part, tenant.currency, request.state.settings.max_line_bytes)
        rows += good
        answer.rejected += len(part) - len(good)
        room = MAX_ERRORS - len(answer.errors)
        answer.errors += errors[:room]
        answer.errors_omitted += max(0, len(errors) - room)
        await asyncio.sleep(0)  # a large body must not keep others waiting
    all_or_nothing = choice(request, "on_error", ("skip", "reject")) == "reject"
    if all_or_nothing and answer.rejected:
        rows.clear()
    parts = _parts(rows)
    if all_or_nothing and len(parts) > 1:
        limits = f"{topics.MAX_ROWS} rows and {topics.MAX_MESSAGE_BYTES} bytes"
        raise Problem(413, "too_many_rows", f"on_error=reject takes what fits one message: {limits}")
    id_ = envelope.request_id(tenant.tenant_id, "price-events", key)
    messages, first = [], 1
    for n, part in enumerate(parts, 1):
        last = part[-1][0] if n < len(parts) else body.lines
        event_id = envelope.event_id(
            request.state.settings.secret, tenant.tenant_id, id_, f"{first}-{last} {body.hash}"
        )
        value = codec.frame(PRICE.type, tenant.tenant_id, [row for _, row in part])
        messages.append(Message(PRICE.type, value, len(part), event_id, envelope.Request(id_, first, last, body.lines)))
        first = last + 1
    answer.accepted, answer.event_ids = len(rows), [message.event_id for message in messages]
    received(request, PRICE.name, "rejected", answer.rejected)
    return answer, messages


def _parts(rows: list[parse.Row]) -> list[list[parse.Row]]:
    """Rows by messages: it depends on the body alone, so that a resend is split alike."""
    parts: list[list[parse.Row]] = []
    size = 0
    for row in rows:
        size += len(row[1])
        if not parts or len(parts[-1]) == topics.MAX_ROWS or size + _HEAD_BYTES > topics.MAX_MESSAGE_BYTES:
            parts.append([])
            size = len(row[1])
        parts[-1].append(row)
    return parts
