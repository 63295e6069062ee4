"""The topic `tenants` as a table, for joins and people; gateways authenticate from the topic, never from here."""

from typing import Any

import psycopg
from msgspec import to_builtins
from psycopg.types.json import Jsonb

from producers.tenants import ApiKey, Tenant
from sinks.sql import statement


def materialise(db: psycopg.Connection[Any], changed: list[tuple[Tenant, int, int]]) -> None:
    """Upsert tenants, each as of its offset in the topic; keys without their hashes."""
    for tenant, offset, time_ms in changed:
        row = {
            "tenant_id": tenant.tenant_id,
            "name": tenant.name,
            "currency": tenant.currency,
            "limits": Jsonb(to_builtins(tenant.limits)),
            "policies": Jsonb(to_builtins(tenant.policies)),
            "keys": Jsonb([_shown(key) for key in tenant.keys]),
            "log_offset": offset,
            "changed_ms": time_ms,
        }
        db.execute(statement("upsert_tenant"), row)


def _shown(key: ApiKey) -> dict[str, Any]:
    return {"key_id": key.key_id, "created_at_us": key.created_at, "expires_at_us": key.expires_at}
