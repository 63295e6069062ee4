"""What a tenant's people say about prices: the limits of a product, and what becomes of held prices.

Both are messages on topic `prices`, in force from their place in the log on. A tenant's policy is its own change
(gateway/admin.py).
"""

import hashlib
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response

from gateway import idempotency
from gateway.filters import none
from gateway.ingest import json_body
from gateway.price_messages import Message, media_type, product_of_path, published
from gateway.problems import Problem
from gateway.publishing import Answer, unavailable
from gateway.tenants import authenticated
from producers.tenants import Tenant
from schemas import codec, envelope, topics
from schemas.prices import HELD_PRICE_DECISION, PRICE_LIMITS
from schemas.rows import Identifier, OptionalMoney
from schemas.values import Invalid, amount, identifier

_MAX_ID = 100


class HeldPrice(Struct, forbid_unknown_fields=True):
    """A price that is held, as its verdict or alert names it."""

    product_id: Identifier
    held_offset: Annotated[int, Meta(ge=0, le=2**63 - 1)]


class Decision(Struct, forbid_unknown_fields=True):
    """What is decided about held prices."""

    decision: Literal["approve", "reject"]
    held: Annotated[list[HeldPrice], Meta(min_length=1, max_length=topics.MAX_ROWS)]
    decided_by: Annotated[str, Meta(min_length=1, max_length=200, description="A name for the history.")] = "api"
    reason: Annotated[str, Meta(max_length=500)] | None = None


class PriceLimits(Struct, forbid_unknown_fields=True):
    """Floor and ceiling of a product, in the currency of its prices; what is absent or null is none."""

    floor: OptionalMoney = msgspec.field(default_factory=msgspec.Raw)
    ceiling: OptionalMoney = msgspec.field(default_factory=msgspec.Raw)


async def price_decisions(request: Request) -> Response:
    """Approve or reject prices that are held.

    202 once Kafka has acknowledged. A decision counts while the price is held: not after another one, and not once a
    later price of the product has come. Where Accept prefers NDJSON, lines say what became of each.
    """
    tenant = _let_in(request)
    given, text = await json_body(request, tenant, Decision)
    rows: list[codec.Record] = []
    for line, held in enumerate(given.held, 1):
        _checked_id(held.product_id, f"held[{line - 1}].product_id")
        row = {"line": line, "product_id": held.product_id, "held_offset": held.held_offset}
        rows.append(row | {"decision": given.decision})
    if "\x00" in given.decided_by + (given.reason or ""):
        raise _bad("text may not contain NUL (U+0000)")
    said = {"decided_by": given.decided_by, "reason": given.reason}
    return await _taken(request, tenant, "price-decisions", HELD_PRICE_DECISION, rows, text, said)


async def price_limits(request: Request) -> Response:
    """Set the floor and the ceiling of a product.

    202 once Kafka has acknowledged; they hold for changes that come later, and replace those from before. Where Accept
    prefers NDJSON, lines: the answer, the verdict, a summary.
    """
    product_id = product_of_path(request, b"price-limits")
    tenant = _let_in(request)
    _checked_id(product_id, "the product_id of the path")
    given, text = await json_body(request, tenant, PriceLimits)
    floor, ceiling = _money(given.floor, "floor"), _money(given.ceiling, "ceiling")
    if floor is not None and ceiling is not None and int.from_bytes(floor, "big") > int.from_bytes(ceiling, "big"):
        raise _bad("the floor is above the ceiling")
    row = {"line": 1, "product_id": product_id, "floor": floor, "ceiling": ceiling}
    return await _taken(request, tenant, "price-limits", PRICE_LIMITS, [row], f"{product_id}\n{text}", {})


def _let_in(request: Request) -> Tenant:
    """The tenant, once all but the body is right."""
    request.state.idempotency_key = idempotency.key_of(request)
    tenant = authenticated(request)
    none(request.query_params)
    media_type(request)
    if not request.state.kafka.reachable:
        raise unavailable("Kafka is away")
    return tenant


async def _taken(
    request: Request, tenant: Tenant, route: str, type_: str, rows: list[codec.Record], text: str, said: dict[str, Any]
) -> Response:
    """Publish rows as one message; `text` is what makes a second request the same."""
    body_hash, lines = hashlib.sha256(text.encode()).hexdigest(), len(rows)
    id_ = envelope.request_id(tenant.tenant_id, route, request.state.idempotency_key)
    event_id = envelope.event_id(request.state.settings.secret, tenant.tenant_id, id_, f"1-{lines} {body_hash}")
    value = codec.encode(type_, {"tenant_id": tenant.tenant_id, "rows": rows, **said})
    message = Message(type_, value, lines, event_id, envelope.Request(id_, 1, lines, lines))
    return await published(request, tenant, Answer([event_id], lines, 0, [], 0), [message], body_hash)


def _checked_id(product_id: str, where: str) -> None:
    try:
        identifier(product_id)
    except Invalid as exc:
        raise _bad(f"{where}: {exc.detail}") from exc
    if len(product_id) > _MAX_ID or "\x00" in product_id:
        raise _bad(f"{where} has 1 to {_MAX_ID} characters, none of them NUL")


def _money(raw: msgspec.Raw, name: str) -> bytes | None:
    if bytes(raw) in (b"", b"null"):
        return None
    try:
        return amount(bytes(raw))
    except Invalid as exc:
        raise _bad(f"{name}: {exc.detail}") from exc
    except msgspec.DecodeError as exc:
        raise _bad(f"{name}: expected an amount such as 12.50") from exc


def _bad(detail: str) -> Problem:
    return Problem(422, "bad_price_rule", detail)
