"""Tenants over HTTP, for who has the admin token: make, list, change; make, rotate and revoke keys.

A change is answered when it is in force on this gateway; the others have it within a second (README, "Tenants").
"""

import asyncio
import hmac
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import asdict
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import Response

from gateway import bodies
from gateway.ingest import known_parameters
from gateway.price_policy import PricesChange
from gateway.problems import Problem, json
from gateway.wording import sentence
from producers import tenants
from producers.tenant import MAX_GRACE_S, MAX_NAME, MAX_PER_MINUTE, ORDER_TOTALS, TENANT_ID, Limits, Policies, Tenant
from producers.tenants import Change
from schemas.errors import Rejected, Unavailable

BASE: Final = "/api/v1/admin/tenants"
_MAX_BODY_BYTES: Final = 65_536
_PAGE: Final = 100
_MAX_PAGE: Final = 1_000
_STATUS: Final = {"tenant_exists": 409, "too_many_keys": 409, "unknown_tenant": 404, "unknown_key": 404}
"""Of what a change rejects; everything else is 422."""


_MakesKey = Callable[[Tenant | None], tuple[Tenant, str]]
_Body = TypeVar("_Body", bound=Struct)


# What these take beyond their types is checked by `producers.tenant.checked`; the schemas are for readers.
_PerMinute = Annotated[int, Meta(extra_json_schema={"minimum": 0, "maximum": MAX_PER_MINUTE})]
_CurrencyCode = Annotated[str, Meta(extra_json_schema={"pattern": "^[A-Z]{3}$"}, description="ISO 4217 code.")]
_OrderTotals = Annotated[
    str,
    Meta(
        extra_json_schema={"enum": ORDER_TOTALS},
        description="What an order's total must be to the sum of its items: shipping and tax come `at_least` on top.",
    ),
]
_DateTime = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]


class LimitsChange(Struct, forbid_unknown_fields=True):
    """Single events a minute: 0 is no limit, null the gateway's default."""

    requests_per_minute: _PerMinute | UnsetType | None = UNSET
    product_events_per_minute: _PerMinute | UnsetType | None = UNSET


class PoliciesChange(Struct, forbid_unknown_fields=True):
    """What rows must be, how stock is kept and prices are judged; null is the default."""

    currencies: (
        Annotated[list[_CurrencyCode], Meta(description="That rows may name; empty for any.")] | UnsetType | None
    ) = UNSET
    order_totals: _OrderTotals | UnsetType | None = UNSET
    oversell: Annotated[bool, Meta(description="Whether a level of stock may fall below zero.")] | UnsetType | None = (
        UNSET
    )
    prices: PricesChange | UnsetType | None = UNSET


class Changes(Struct, forbid_unknown_fields=True):
    """What is absent stays as it is, null goes back to the default."""

    name: Annotated[str, Meta(extra_json_schema={"minLength": 1, "maxLength": MAX_NAME})] | UnsetType = UNSET
    currency: _CurrencyCode | UnsetType = UNSET
    limits: LimitsChange | UnsetType | None = UNSET
    policies: PoliciesChange | UnsetType | None = UNSET


class NewTenant(Changes, kw_only=True, forbid_unknown_fields=True):
    """A tenant to be made; its name is its id where absent."""

    tenant_id: Annotated[str, Meta(extra_json_schema={"pattern": TENANT_ID})]


class NewKey(Struct, forbid_unknown_fields=True):
    """A key to be made. With `grace_seconds`, the tenant's other keys end after so long."""

    grace_seconds: Annotated[int, Meta(extra_json_schema={"minimum": 0, "maximum": MAX_GRACE_S})] | None = None


class ShownKey(Struct):
    """A key without its secret."""

    key_id: str
    created_at: _DateTime
    expires_at: Annotated[_DateTime | None, Meta(description="Null: no end.")]


class ShownTenant(Struct):
    """A tenant as it is."""

    tenant_id: str
    name: str
    currency: Annotated[str, Meta(description="Of products that name none.")]
    keys: list[ShownKey]
    limits: Limits
    policies: Policies


class TenantPage(Struct):
    """Tenants by id; `next_cursor` is null on the last page."""

    tenants: list[ShownTenant]
    next_cursor: str | None


class ShownApiKey(Struct):
    """A new key: shown now, and never again."""

    key_id: str
    api_key: str


class MadeTenant(ShownTenant):
    """A tenant with its first key: shown now, and never again."""

    key_id: str
    api_key: str


class _Guarded(HTTPEndpoint):
    """Lets nobody in without the admin token."""

    async def dispatch(self) -> None:
        request = Request(self.scope)
        token = request.state.settings.admin_token
        if not token:
            raise Problem(403, "admin_off", "this gateway has no TILLSTREAM_ADMIN_TOKEN, so that its admin API is off")
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not given.strip():
            raise Problem(401, "missing_admin_token", "send the admin token as 'Authorization: Bearer <token>'")
        if not hmac.compare_digest(given.strip().encode(), token.encode()):
            raise Problem(401, "wrong_admin_token", "this is not the admin token (an API key is none)")
        await super().dispatch()


class Tenants(_Guarded):
    """/api/v1/admin/tenants"""

    async def post(self, request: Request) -> Response:
        """Make a tenant and its first API key.

        201 with both; the key is never shown again.
        """
        given = await _body(request, NewTenant)

        def made(known: Tenant | None) -> tuple[Tenant, str]:
            if known is not None:
                raise Rejected("tenant_exists", f"{given.tenant_id} exists; PATCH changes it, POST …/keys adds a key")
            fresh = Tenant(given.tenant_id, given.tenant_id)
            return tenants.with_new_key(tenants.merged(fresh, msgspec.to_builtins(given)))

        return await _keyed(request, given.tenant_id, made, whole=True)

    async def get(self, request: Request) -> Response:
        """List tenants by id, a page at a time."""
        known_parameters(request, {"limit", "cursor"})
        size = request.query_params.get("limit", str(_PAGE))
        if not (size.isascii() and size.isdigit() and len(size) < 16 and 1 <= int(size) <= _MAX_PAGE):
            raise Problem(400, "bad_parameter", f"limit takes 1 to {_MAX_PAGE}, not {size!r}")
        after = request.query_params.get("cursor", "")
        page = await asyncio.to_thread(request.state.registry.page, after, int(size) + 1)
        more, page = len(page) > int(size), page[: int(size)]
        return json(200, TenantPage([_shown(each) for each in page], page[-1].tenant_id if more else None))


class OneTenant(_Guarded):
    """/api/v1/admin/tenants/{tenant_id}"""

    async def get(self, request: Request) -> Response:
        """Show a tenant: its limits, policies and keys (never a key itself)."""
        return json(200, _shown(request.state.registry.get(request.path_params["tenant_id"])))

    async def patch(self, request: Request) -> Response:
        """Change a tenant where the body names something.

        200 with the tenant as it is now; other gateways follow within a second.
        """
        given = msgspec.to_builtins(await _body(request, Changes))
        return json(200, _shown(await _change(request, lambda known: tenants.merged(known, given))))


class Keys(_Guarded):
    """/api/v1/admin/tenants/{tenant_id}/keys"""

    async def post(self, request: Request) -> Response:
        """Make one more key, or one in place of the others.

        201; the key is never shown again.
        """
        grace = (await _body(request, NewKey)).grace_seconds
        if grace is not None and not 0 <= grace <= MAX_GRACE_S:
            raise Problem(422, "bad_grace", f"grace_seconds takes 0 to {MAX_GRACE_S}, not {grace}")

        def made(known: Tenant | None) -> tuple[Tenant, str]:
            old = _known(known)
            return tenants.with_new_key(old) if grace is None else tenants.with_rotated_keys(old, grace * 1_000_000)

        return await _keyed(request, request.path_params["tenant_id"], made)


class Key(_Guarded):
    """/api/v1/admin/tenants/{tenant_id}/keys/{key_id}"""

    async def delete(self, request: Request) -> Response:
        """End a key now.

        200 with the tenant, where the key stays listed.
        """
        key_id = request.path_params["key_id"]
        return json(200, _shown(await _change(request, lambda known: tenants.with_revoked_key(known, key_id))))


async def _keyed(request: Request, tenant_id: str, made: _MakesKey, *, whole: bool = False) -> Response:
    """Make a key by `made`, and answer 201 with it, and with the whole tenant if asked to."""
    key = ""

    def to(known: Tenant | None) -> Tenant:
        nonlocal key
        tenant, key = made(known)
        return tenant

    tenant = await _published(request, tenant_id, to)
    made_key = ShownApiKey(tenant.keys[-1].key_id, key)
    body = MadeTenant(**asdict(_shown(tenant)), **asdict(made_key)) if whole else made_key
    return json(201, body, {"Location": f"{BASE}/{tenant_id}", "Cache-Control": "no-store"})


async def _change(request: Request, to: Callable[[Tenant], Tenant]) -> Tenant:
    """Change the tenant that the path names, which must exist."""
    return await _published(request, request.path_params["tenant_id"], lambda known: to(_known(known)))


async def _body(request: Request, kind: type[_Body]) -> _Body:
    """The request's JSON; no body is an empty object. Raises Problem."""
    settings, inflight = replace(request.state.settings, max_body_bytes=_MAX_BODY_BYTES), request.state.inflight
    raw = await bodies.read(request, "", settings, inflight)
    inflight.give_back("", len(raw))
    try:
        return msgspec.json.decode(raw or b"{}", type=kind)
    except msgspec.ValidationError as exc:
        raise Problem(422, "bad_body", f"{sentence(exc)}; see README, 'Tenants'") from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise Problem(400, "malformed_json", f"the body is not one JSON object: {exc}") from exc


async def _published(request: Request, tenant_id: str, to: Change) -> Tenant:
    """The tenant once `to` is in force here. Raises Problem."""
    if not request.state.kafka.reachable:
        raise _unavailable("Kafka is away")
    try:
        changed: Tenant = await request.state.registry.change(tenant_id, to)
        return changed
    except Rejected as exc:
        raise Problem(_STATUS.get(exc.code, 422), exc.code, exc.detail) from exc
    except Unavailable as exc:
        raise _unavailable(str(exc)) from exc


def _shown(tenant: Tenant) -> ShownTenant:
    return msgspec.convert(tenants.shown(tenant), ShownTenant)


def _known(tenant: Tenant | None) -> Tenant:
    if tenant is None:
        raise Rejected("unknown_tenant", "the path names a tenant that does not exist; check its spelling")
    return tenant


def _unavailable(why: str) -> Problem:
    return Problem(503, "kafka_unavailable", f"{why}. Whether it changed is unknown: look, or try again", retry_after=2)
