"""Who may come in: every gateway's own registry of tenants, read from the compacted topic; no database needed."""

import hmac
import logging
import threading
import time

import confluent_kafka
from starlette.requests import Request

from gateway.problems import Problem
from producers import tenants
from producers.tenants import ApiKey, Tenant
from schemas import metrics
from schemas.errors import Undecodable
from schemas.settings import Settings

log = logging.getLogger(__name__)


class Registry:
    """Tenants and key hashes, kept up to date by a thread that follows the topic `tenants`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._tenants: dict[str, Tenant] = {}
        self._by_hash: dict[bytes, str] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="tenants", daemon=True)
        self.loaded = threading.Event()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def authenticate(self, tenant_id: str, key: str) -> Tenant:
        """The tenant whose live key this is. Raises Problem: 401, 403, 404, or 503 while the topic is not read yet."""
        hashed = tenants.digest(key)
        owner = self._tenants.get(self._by_hash.get(hashed, ""))
        entry = _entry(owner, hashed) if owner is not None else None
        if owner is None or entry is None:
            self._must_be_loaded()
            raise Problem(401, "invalid_key", "this API key is not known; check it for missing characters")
        if entry.expires_at is not None and entry.expires_at <= time.time_ns() // 1000:
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

    def _follow(self) -> None:
        consumer = tenants.reader(self._settings)
        while not self._stopping.is_set():
            message = consumer.poll(0.2)
            if message is None:
                continue
            if error := message.error():
                if error.code() == confluent_kafka.KafkaError._PARTITION_EOF:
                    self.loaded.set()
                else:
                    log.warning("tenants: %s", error.str())
                continue
            try:
                self._apply(message)
            except Undecodable as exc:
                log.error("tenants@%d ignored: %s", message.offset(), exc)
        consumer.close()

    def _apply(self, message: confluent_kafka.Message) -> None:
        tenant_id = message.key().decode()
        before = self._tenants.get(tenant_id)
        tenants.apply(self._tenants, message)
        after = self._tenants.get(tenant_id)
        # Add before removing: a request in between finds a key that both versions have.
        for key in after.keys if after else ():
            self._by_hash[key.sha256] = tenant_id
        kept = {key.sha256 for key in after.keys} if after else set()
        for key in before.keys if before else ():
            if key.sha256 not in kept:
                self._by_hash.pop(key.sha256, None)
        metrics.TENANTS.set(len(self._tenants))


def _entry(owner: Tenant, hashed: bytes) -> ApiKey | None:
    return next((key for key in owner.keys if hmac.compare_digest(key.sha256, hashed)), None)


def api_key(request: Request) -> str:
    """The key a request carries, as `X-API-Key` or as a bearer token. Raises Problem 401."""
    if key := request.headers.get("x-api-key"):
        return key.strip()
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    raise Problem(401, "missing_key", "send your API key as 'X-API-Key: <key>' or 'Authorization: Bearer <key>'")


def authenticated(request: Request) -> Tenant:
    """The tenant of the path, whose key the request carries. Raises Problem 401, 403, 404 or 503."""
    tenant: Tenant = request.state.registry.authenticate(request.path_params["tenant_id"], api_key(request))
    return tenant
