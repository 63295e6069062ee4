"""API keys for `tillstream ingest`: given, from a file, kept from the run before, or made through the admin API."""

import asyncio
import time
from pathlib import Path
from typing import Final
from urllib.parse import quote

import httpx

from deploy.ingest_files import Job, read_csv
from producers.calls import Refused, accepted, problem
from producers.gateway import Gateway, key_header
from schemas.errors import Misconfigured, Unavailable

_KNOWN_WITHIN_S: Final = 10.0


class Keys:
    """Keys by tenant id. `kept` is the resume file's, to which keys made here are added."""

    def __init__(self, given: dict[str, str], kept: dict[str, str], admin_token: str) -> None:
        self._given, self._kept, self._admin_token = given, kept, admin_token

    async def of(self, job: Job, gateway: Gateway) -> str:
        """The key of a job's tenant. Raises Misconfigured when there is no way to one, Refused, Unavailable."""
        if key := self._given.get(job.tenant_id):
            return key
        kept = self._kept.get(job.tenant_id)
        if kept and await _works(gateway, job.tenant_id, kept):
            return kept
        if not self._admin_token:
            raise Misconfigured(
                f"no API key for {job.tenant_id}: give --tenant-id and --api-key, or --keys FILE with columns"
                " tenant_id,api_key, or the admin token in TILLSTREAM_ADMIN_TOKEN"
            )
        made = self._kept[job.tenant_id] = await self._make(job, gateway)
        await _until_known(gateway, job.tenant_id, made)
        return made

    async def _make(self, job: Job, gateway: Gateway) -> str:
        """Make the tenant, or one more key where it exists."""
        auth = {"Authorization": f"Bearer {self._admin_token}"}
        tenant = {"tenant_id": job.tenant_id, "name": job.name, "currency": job.currency}
        answer = await gateway.call("POST", "/api/v1/admin/tenants", auth, tenant)
        if problem(answer).get("code") == "tenant_exists":
            answer = await gateway.call("POST", f"/api/v1/admin/tenants/{quote(job.tenant_id, safe='')}/keys", auth, {})
        try:
            return str(accepted(answer)["api_key"])
        except Refused as exc:
            raise Misconfigured(f"the gateway makes no key for {job.tenant_id}: {exc}") from exc


def given(tenant_id: str | None, api_key: str, keys_file: Path | None, folder: Path | None) -> dict[str, str]:
    """Keys that the caller names: --api-key, else --keys, else keys.csv in the folder. Raises Misconfigured."""
    if api_key:
        if tenant_id is None:
            raise Misconfigured("--api-key is one tenant's: say whose with --tenant-id, or give --keys FILE")
        return {tenant_id: api_key}
    beside = folder / "keys.csv" if folder is not None else None
    path = keys_file or (beside if beside is not None and beside.is_file() else None)
    if path is None:
        return {}
    return {row["tenant_id"]: row["api_key"] for row in read_csv(path, "tenant_id", "api_key")}


async def _works(gateway: Gateway, tenant_id: str, key: str) -> bool:
    return (await _probe(gateway, tenant_id, key)).status_code not in (401, 403, 404)


async def _probe(gateway: Gateway, tenant_id: str, key: str) -> httpx.Response:
    """The answer to an empty body, which no gateway takes; one that knows the key says so with 400."""
    path = f"/api/v1/tenants/{quote(tenant_id, safe='')}/ingest/customers?validate_only=true"
    return await gateway.call("POST", path, key_header(key))


async def _until_known(gateway: Gateway, tenant_id: str, key: str) -> None:
    """Return when the gateway has heard of a new key, which takes it a moment."""
    deadline = time.monotonic() + _KNOWN_WITHIN_S
    while not await _works(gateway, tenant_id, key):
        if time.monotonic() > deadline:
            raise Unavailable(
                f"the gateway has not heard of {tenant_id}'s new key in {_KNOWN_WITHIN_S:.0f} s; is Kafka up?"
            )
        await asyncio.sleep(0.1)
