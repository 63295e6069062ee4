"""What `tillstream demo --keep` goes on sending, so that the console has something to show."""

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Final

import httpx

from producers import generate
from producers.generate import Plan

_PAUSE_S: Final = 1.0
_EACH: Final = {"ingest/orders": 40, "stock-events": 20, "price-events": 8}
"""Rows of a body, by path, a second and tenant."""
_LONG: Final = 10_000_000


async def send(gateway_url: str, keys: dict[str, str], plan: Plan) -> None:
    """Send a little of everything each second, for every tenant, until cancelled; what is not taken is left out."""
    longer = replace(plan, orders_per_tenant=_LONG, products_per_tenant=min(plan.products_per_tenant, 200))
    async with httpx.AsyncClient(base_url=gateway_url, timeout=30) as http, asyncio.TaskGroup() as group:
        for index, (tenant_id, key) in enumerate(keys.items()):
            group.create_task(_one(http, tenant_id, key, longer, index, plan.orders_per_tenant))


async def _one(http: httpx.AsyncClient, tenant_id: str, key: str, plan: Plan, index: int, first_order: int) -> None:
    rows: dict[str, Iterator[bytes]] = {
        "ingest/orders": generate.orders(plan, index, first_order, _LONG - first_order),
        "stock-events": generate.stock_events(plan, index, 0, _LONG),
        "price-events": generate.price_events(plan, index, 0, _LONG),
    }
    headers = {"X-API-Key": key, "Content-Type": "application/x-ndjson"}
    while True:
        for path, count in _EACH.items():
            body = b"".join(itertools.islice(rows[path], count))
            with suppress(httpx.TransportError):  # a gateway that starts again
                await http.post(f"/api/v1/tenants/{tenant_id}/{path}", content=body, headers=headers)
        await asyncio.sleep(_PAUSE_S)
