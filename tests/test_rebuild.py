"""A database that is made again from the topics is the same, row for row, whatever a sink put into one transaction."""

import json
import random
from dataclasses import replace
from typing import Any

from msgspec import structs
from pipeline import Pipeline

from producers import tenants
from producers.tenants import Policies, Tenant

STATUSES = ("pending", "paid", "shipped")
SAME = {
    "products": "SELECT * FROM products ORDER BY tenant_id, product_id",
    # revision counts how often PostgreSQL rewrote the row, which is no business of anybody else.
    "orders": "SELECT to_jsonb(orders) - 'revision' FROM orders ORDER BY tenant_id, external_order_id",
    "order_items": "SELECT * FROM order_items ORDER BY tenant_id, external_order_id, item",
    "ledger": "SELECT to_jsonb(ledger) - 'applied_at' FROM ledger ORDER BY topic, partition, log_offset",
    "row_errors": "SELECT * FROM row_errors ORDER BY topic, partition, log_offset, row_index",
    "tenants": "SELECT * FROM tenants ORDER BY tenant_id",
    "policies": "SELECT * FROM ingestion_policies ORDER BY tenant_id",
}


def products(rng: random.Random) -> list[dict[str, Any]]:
    """Products that take each other's skus."""
    return [
        {
            "product_id": f"P-{rng.randrange(30)}",
            "sku": f"S-{rng.randrange(40)}",
            "name": "x",
            "price": rng.randrange(9),
        }
        for _ in range(rng.randrange(1, 30))
    ]


def orders(rng: random.Random) -> list[dict[str, Any]]:
    """Versions of few orders, some older than what came before, some with totals that only some policies allow."""
    item = {"product_id": "P-1", "quantity": 2, "unit_price": "5.00"}
    return [
        {
            "external_order_id": f"A-{rng.randrange(20)}",
            "total_amount": rng.choice([10, 10, 12]),
            "currency": rng.choice(["EUR", "EUR", "USD"]),
            "order_status": rng.choice(STATUSES),
            "order_date": "2026-01-31T23:59:59Z",
            "items": [item] * rng.choice([0, 1, 1]),
            "updated_at": f"2026-02-{rng.randrange(1, 28):02d}T00:00:00Z",
        }
        for _ in range(rng.randrange(1, 30))
    ]


def another_policy(rng: random.Random) -> Policies:
    return Policies(rng.choice([(), ("EUR",)]), rng.choice(["exact", "at_least", "any"]))


def judge_by(pipeline: Pipeline, tenant: str, policies: Policies) -> None:
    def change(known: Tenant | None) -> Tenant:
        assert known is not None
        return structs.replace(known, policies=policies)

    tenants.change(pipeline.settings, tenant, change)


def found(pipeline: Pipeline) -> dict[str, list[Any]]:
    return {name: pipeline.sql(query) for name, query in SAME.items()}


def test_a_rebuilt_database_is_the_same_whatever_the_batches_were(own_pipeline: Pipeline) -> None:
    rng = random.Random(7)
    own_pipeline.backup()
    own_pipeline.start("gateway", "streams", restarted=False)
    own_pipeline.start("sinks", restarted=False)
    shops = [own_pipeline.tenant() for _ in range(2)]
    for _ in range(60):
        tenant, key = rng.choice(shops)
        entity, make = rng.choice([("products", products), ("orders", orders)])
        body = "\n".join(map(json.dumps, make(rng)))
        assert own_pipeline.post(tenant, key, entity, body).status_code == 202
        if rng.random() < 0.2:
            judge_by(own_pipeline, tenant, another_policy(rng))
    report = own_pipeline.drained()
    own_pipeline.stop("sinks")
    first = found(own_pipeline)
    for tenant, _ in shops:
        outcomes = report.tenants[tenant].outcomes
        assert min(outcomes["applied"], outcomes["superseded"], outcomes["rejected"]) > 0
    codes = own_pipeline.sql("SELECT DISTINCT code FROM row_errors")
    assert {("sku_taken",), ("total_mismatch",), ("currency_not_allowed",)} <= set(codes)
    for rows in (1, 100_000):
        own_pipeline.restore()
        own_pipeline.settings = replace(own_pipeline.settings, sink_batch_rows=rows)
        own_pipeline.start("sinks", restarted=False)
        own_pipeline.drained()
        own_pipeline.stop("sinks")
        again = found(own_pipeline)
        for name in SAME:
            assert again[name] == first[name], (name, rows)
