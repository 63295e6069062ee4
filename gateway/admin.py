"""Tenants over HTTP, for who has the admin token: make, list, change; make, rotate and revoke keys.

A change is answered when it is in force on this gateway; the others have it within a second (README, "Tenants").
"""

import asyncio
import hmac
from collections.abc import Callable
from dataclasses import replace
from typing import Final, TypeVar

import msgspec
from msgspec import UNSET, Struct, UnsetType
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import Response

from gateway import bodies
from gateway.problems import Problem, json
from producers import tenants
from producers.tenant import MAX_GRACE_S, Tenant
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


class _Limits(Struct, forbid_unknown_fields=True):
    requests_per_minute: int | UnsetType | None = UNSET
    product_events_per_minute: int | UnsetType | None = UNSET


class _Policies(Struct, forbid_unknown_fields=True):
    currencies: list[str] | UnsetType | None = UNSET
    order_totals: str | UnsetType | None = UNSET


class Changes(Struct, forbid_unknown_fields=True):
    """What a PATCH may say. What is absent stays, null goes back to the default."""

    name: str | UnsetType = UNSET
    currency: str | UnsetType = UNSET
    limits: _Limits | UnsetType | None = UNSET
    policies: _Policies | UnsetType | None = UNSET


class NewTenant(Changes, kw_only=True, forbid_unknown_fields=True):
    """What a POST may say."""

    tenant_id: str


class NewKey(Struct, forbid_unknown_fields=True):
    """With `grace_seconds`, the tenant's other keys end after so long."""

    grace_seconds: int | None = None


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
        """Make a tenant and its first API key: 201 with both."""
        given = await _body(request, NewTenant)

        def made(known: Tenant | None) -> tuple[Tenant, str]:
            if known is not None:
                raise Rejected("tenant_exists", f"{given.tenant_id} exists; PATCH changes it, POST …/keys adds a key")
            fresh = Tenant(given.tenant_id, given.tenant_id)
            return tenants.with_new_key(tenants.merged(fresh, msgspec.to_builtins(given)))

        return await _keyed(request, given.tenant_id, made, whole=True)

    async def get(self, request: Request) -> Response:
        """All tenants by id, a page at a time: `next_cursor` is null on the last."""
        size = request.query_params.get("limit", str(_PAGE))
        if not size.isascii() or not size.isdigit() or not 1 <= int(size[:9]) <= _MAX_PAGE:
            raise Problem(400, "bad_parameter", f"limit takes 1 to {_MAX_PAGE}, not {size!r}")
        after = request.query_params.get("cursor", "")
        page = await asyncio.to_thread(request.state.registry.page, after, int(size) + 1)
        more, page = len(page) > int(size), page[: int(size)]
        body = {"tenants": [tenants.shown(each) for each in page], "next_cursor": page[-1].tenant_id if more else None}
        return json(200, body)


class OneTenant(_Guarded):
    """/api/v1/admin/tenants/{tenant_id}"""

    async def get(self, request: Request) -> Response:
        """The tenant, its limits, policies and keys (never a key itself)."""
        return json(200, tenants.shown(request.state.registry.get(request.path_params["tenant_id"])))

    async def patch(self, request: Request) -> Response:
        """Change what the body names: 200 with the tenant as it is now."""
        given = msgspec.to_builtins(await _body(request, Changes))
        return json(200, tenants.shown(await _change(request, lambda known: tenants.merged(known, given))))


class Keys(_Guarded):
    """/api/v1/admin/tenants/{tenant_id}/keys"""

    async def post(self, request: Request) -> Response:
        """One more key, or with `grace_seconds` one in place of the others: 201 `{key_id, api_key}`."""
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
        """End a key now: 200 with the tenant."""
        key_id = request.path_params["key_id"]
        return json(200, tenants.shown(await _change(request, lambda known: tenants.with_revoked_key(known, key_id))))


async def _keyed(request: Request, tenant_id: str, made: _MakesKey, *, whole: bool = False) -> Response:
    """Make a key by `made`, and answer 201 with it, and with the whole tenant if asked to."""
    key = ""

    def to(known: Tenant | None) -> Tenant:
        nonlocal key
        tenant, key = made(known)
        return tenant

    tenant = await _published(request, tenant_id, to)
    body = tenants.shown(tenant) if whole else {}
    headers = {"Location": f"{BASE}/{tenant_id}", "Cache-Control": "no-store"}
    return json(201, body | {"key_id": tenant.keys[-1].key_id, "api_key": key}, headers)


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
        raise Problem(422, "bad_body", f"{exc}; see README, 'Tenants'") from exc
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


def _known(tenant: Tenant | None) -> Tenant:
    if tenant is None:
        raise Rejected("unknown_tenant", "the path names a tenant that does not exist; check its spelling")
    return tenant


def _unavailable(why: str) -> Problem:
    return Problem(503, "kafka_unavailable", f"{why}. Whether it changed is unknown: look, or try again", retry_after=2)
