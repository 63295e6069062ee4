"""Who may come in: every gateway's own registry of tenants, read from the compacted topic; no database needed."""

import asyncio
import hmac
import logging
from bisect import bisect_right
from collections.abc import Mapping
from typing import Final

from starlette.requests import Request

from gateway.headers import header
from gateway.measured import WHOSE
from gateway.problems import Problem
from producers import tenants
from producers.tenant import ApiKey, now
from producers.tenants import Change, Follower, Tenant
from schemas import metrics
from schemas.errors import Unavailable
from schemas.settings import Settings

log = logging.getLogger(__name__)

_CATCH_UP_S: Final = 5.0


class Registry:
    """Tenants and key hashes, kept up to date by a thread that follows the topic `tenants`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._tenants: dict[str, Tenant] = {}
        self._by_hash: dict[bytes, str] = {}
        self._sorted: list[str] | None = None
        self._follower = Follower(settings, self._apply)
        self._changing = asyncio.Lock()
        self.loaded = self._follower.loaded
        self.start = self._follower.start
        self.stop = self._follower.stop

    def get(self, tenant_id: str) -> Tenant:
        """The tenant. Raises Problem 404, or 503 while the topic is not read yet."""
        if tenant := self._tenants.get(tenant_id):
            return tenant
        self._must_be_loaded()
        raise Problem(404, "unknown_tenant", "the path names a tenant that does not exist; check its spelling")

    def page(self, after: str, size: int) -> list[Tenant]:
        """The next `size` tenants by id, of those behind `after`. Raises Problem 503 while they are not read."""
        self._must_be_loaded()
        if (ids := self._sorted) is None:
            ids = self._sorted = sorted(self._tenants)
        first = bisect_right(ids, after)
        return [tenant for key in ids[first : first + size] if (tenant := self._tenants.get(key))]

    async def change(self, tenant_id: str, to: Change) -> Tenant:
        """Change a tenant, and return when that is in force here, or 5 s later if Kafka goes away just then.

        Raises what `tenants.change` does.
        """
        async with self._changing:
            tenant = await asyncio.to_thread(tenants.change, self._settings, tenant_id, to, self._all)
            try:
                await asyncio.to_thread(self._follower.catch_up, _CATCH_UP_S)
            except Unavailable as exc:  # it is in the log all the same, and a key can be shown only now
                log.warning("%s was changed; here not yet: %s", tenant_id, exc)
        return tenant

    def _all(self) -> Mapping[str, Tenant]:
        self._follower.catch_up(_CATCH_UP_S)
        return self._tenants

    def authenticate(self, tenant_id: str, key: str) -> Tenant:
        """The tenant whose live key this is. Raises Problem: 401, 403, 404, or 503 while the topic is not read yet."""
        hashed = tenants.digest(key)
        owner = self._tenants.get(self._by_hash.get(hashed, ""))
        entry = _entry(owner, hashed) if owner is not None else None
        if owner is None or entry is None:
            self._must_be_loaded()
            raise Problem(401, "invalid_key", "this API key is not known; check it for missing characters")
        if entry.ended(now()):
            raise Problem(401, "revoked_key", f"API key {entry.key_id} was revoked or has expired; ask for a new one")
        if owner.tenant_id != tenant_id:
            if tenant_id not in self._tenants:
                self._must_be_loaded()
                raise Problem(404, "unknown_tenant", "the path names a tenant that does not exist; check its spelling")
            raise Problem(403, "wrong_tenant", "this API key belongs to another tenant than the path names")
        return owner

    def _must_be_loaded(self) -> None:
        if not self.loaded.is_set():
            raise Problem(503, "tenants_not_loaded", "the list of tenants is still being read", retry_after=1)

    def _apply(self, tenant_id: str, after: Tenant | None) -> None:
        before = self._tenants.get(tenant_id)
        if after is None:
            self._tenants.pop(tenant_id, None)
        else:
            self._tenants[tenant_id] = after
        if before is None or after is None:
            self._sorted = None
        # Add before removing: a request in between finds a key that both versions have.
        for key in after.keys if after else ():
            self._by_hash[key.sha256] = tenant_id
        kept = {key.sha256 for key in after.keys} if after else set()
        for key in before.keys if before else ():
            if key.sha256 not in kept:
                self._by_hash.pop(key.sha256, None)
        metrics.TENANTS.set(len(self._tenants))


def _entry(owner: Tenant, hashed: bytes) -> ApiKey | None:
    for key in owner.keys:
        if hmac.compare_digest(key.sha256, hashed):
            return key
    return None


def api_key(request: Request) -> str:
    """The key a request carries, as `X-API-Key` or as a bearer token. Raises Problem 401."""
    return key_in(header(request, b"x-api-key"), header(request, b"authorization"))


def key_in(x_api_key: str, authorization: str) -> str:
    """The key in these headers. Raises Problem 401."""
    if x_api_key:
        return x_api_key.strip()
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    raise Problem(401, "missing_key", "send your API key as 'X-API-Key: <key>' or 'Authorization: Bearer <key>'")


def authenticated(request: Request) -> Tenant:
    """The tenant of the path, whose key the request carries. Raises Problem 401, 403, 404 or 503."""
    tenant: Tenant = request.state.registry.authenticate(request.path_params["tenant_id"], api_key(request))
    setattr(request.state, WHOSE, metrics.TOP.of(tenant.tenant_id))
    return tenant
