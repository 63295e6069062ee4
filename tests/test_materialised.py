"""What the sinks make of tenants and policies, through real processes."""

import json
from typing import Any

from pipeline import Pipeline, eventually

from producers import tenants
from producers.tenants import Policies, Tenant, with_revoked_key

ORDER = {"total_amount": "12.50", "currency": "EUR", "order_status": "paid", "order_date": "2026-01-31T23:59:59Z"}
ITEM = {"product_id": "P", "quantity": 1, "unit_price": "10.00"}


def order(number: int, **fields: Any) -> bytes:
    return json.dumps(ORDER | {"external_order_id": f"A-{number}"} | fields).encode() + b"\n"


def rows(pipeline: Pipeline, tenant: str) -> list[tuple[Any, ...]]:
    return pipeline.sql("SELECT name, currency, keys FROM tenants WHERE tenant_id = %s", tenant)


def test_tenants_are_a_table_without_their_keys_hashes(pipeline: Pipeline) -> None:
    tenant, key = pipeline.tenant(currency="CHF")
    [(name, currency, keys)] = eventually(lambda: rows(pipeline, tenant))
    assert (name, currency) == ("A shop", "CHF")
    [shown] = keys
    assert shown.keys() == {"key_id", "created_at_us", "expires_at_us"}
    assert tenants.digest(key).hex() not in json.dumps(keys)


def test_an_old_database_neither_revives_a_revoked_key_nor_forgets_a_tenant(own_pipeline: Pipeline) -> None:
    own_pipeline.start("gateway", "streams")
    own_pipeline.start("sinks", restarted=False)
    old, key = own_pipeline.tenant()
    eventually(lambda: rows(own_pipeline, old))
    own_pipeline.stop("sinks")
    own_pipeline.backup()
    own_pipeline.start("sinks", restarted=False)
    [key_id] = [entry.key_id for entry in tenants.read_all(own_pipeline.settings)[old].keys]
    tenants.change(own_pipeline.settings, old, lambda tenant: with_revoked_key(tenant or Tenant(old, ""), key_id))
    new, new_key = own_pipeline.tenant()
    own_pipeline.post(new, new_key, "orders", order(1))
    own_pipeline.drained()
    eventually(lambda: rows(own_pipeline, new))
    own_pipeline.stop("sinks")
    own_pipeline.restore()
    assert rows(own_pipeline, new) == []
    own_pipeline.start("sinks", restarted=False)
    eventually(lambda: rows(own_pipeline, new))
    [(_, _, [restored])] = rows(own_pipeline, old)
    assert restored["expires_at_us"] is not None
    own_pipeline.drained()
    assert own_pipeline.sql("SELECT count(*) FROM orders WHERE tenant_id = %s", new) == [(1,)]
    assert own_pipeline.post(old, key, "orders", order(1)).json()["code"] == "revoked_key"
    assert own_pipeline.post(new, new_key, "orders", order(2)).status_code == 202


def test_rows_are_judged_by_the_policies_of_their_tenant(pipeline: Pipeline) -> None:
    tenant, key = pipeline.tenant()
    strict = Policies(currencies=("EUR", "CHF"), order_totals="at_least")

    def change(known: Tenant | None) -> Tenant:
        assert known is not None
        return Tenant(known.tenant_id, known.name, known.currency, known.keys, known.limits, strict)

    tenants.change(pipeline.settings, tenant, change)
    bodies = order(1, items=[ITEM]) + order(2, items=[ITEM, ITEM]) + order(3, currency="USD") + order(4, currency="XXQ")
    assert pipeline.post(tenant, key, "orders", bodies).json()["accepted"] == 4
    pipeline.drained()
    errors = "SELECT line, code, pointer, stage, natural_id, row FROM row_errors WHERE tenant_id = %s ORDER BY line"
    found = pipeline.sql(errors, tenant)
    assert [error[:5] for error in found] == [
        (2, "total_mismatch", "/total_amount", "sink", "A-2"),
        (3, "currency_not_allowed", "/currency", "sink", "A-3"),
        (4, "unknown_currency", "/currency", "sink", "A-4"),
    ]
    assert json.loads(found[0][5])["items"] == [ITEM, ITEM]
    assert pipeline.sql("SELECT external_order_id FROM orders WHERE tenant_id = %s", tenant) == [("A-1",)]
