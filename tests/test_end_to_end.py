"""From HTTP to rows, through real processes."""

import json
import uuid

import pytest
from pipeline import Pipeline, eventually


def order(number: int, **fields: object) -> bytes:
    row = {
        "external_order_id": f"A-{number}",
        "total_amount": "12.50",
        "currency": "EUR",
        "order_status": "paid",
        "order_date": "2026-01-31T23:59:59+01:00",
    } | fields
    return json.dumps(row).encode() + b"\n"


def test_an_order_becomes_a_row_with_its_items(pipeline: Pipeline) -> None:
    tenant, key = pipeline.tenant()
    items = [
        {"product_id": "P-1", "quantity": 2, "unit_price": "5.00"},
        {"product_id": "P-2", "quantity": 1, "unit_price": 2.5},
    ]
    answer = pipeline.post(tenant, key, "orders", order(1, items=items, customer_name="Ærø & Söhne", gift=True))
    assert answer.status_code == 202
    assert (answer.json()["accepted"], answer.json()["rejected"], answer.json()["errors"]) == (1, 0, [])
    assert uuid.UUID(answer.json()["event_ids"][0]).version == 5
    assert answer.headers["idempotency-key"]
    [row] = eventually(
        lambda: pipeline.sql(
            "SELECT total_amount::text, customer_name, order_status, extract(epoch FROM order_date)::bigint,"
            " raw_payload, uuid_extract_version(id) FROM orders WHERE tenant_id = %s", tenant)
    )  # fmt: skip
    assert row == ("12.50", "Ærø & Söhne", "paid", 1769900399, {"gift": True}, 5)
    assert pipeline.sql(
        "SELECT item, product_id, quantity, unit_price::text FROM order_items WHERE tenant_id = %s ORDER BY item",
        tenant,
    ) == [(0, "P-1", 2, "5.00"), (1, "P-2", 1, "2.50")]


def test_customers_and_products_become_rows(pipeline: Pipeline) -> None:
    tenant, key = pipeline.tenant(currency="CHF")
    customer = {"customer_id": "C-1", "email": "a@example.com", "attributes": {"vip": True}, "shoe_size": 43}
    product = {"product_id": "P-1", "name": "Kettle", "price": 19.9, "updated_at": "2026-02-01T00:00:00Z"}
    assert pipeline.post(tenant, key, "customers", json.dumps(customer)).status_code == 202
    assert pipeline.post(tenant, key, "products", json.dumps(product)).status_code == 202
    pipeline.drained()
    assert pipeline.sql("SELECT email, attributes FROM customers WHERE tenant_id = %s", tenant) == [
        ("a@example.com", {"vip": True, "shoe_size": 43})
    ]
    assert pipeline.sql("SELECT sku, price::text, currency, active FROM products WHERE tenant_id = %s", tenant) == [
        ("P-1", "19.90", "CHF", True)
    ]


def test_the_same_request_sent_twice_is_applied_once(pipeline: Pipeline) -> None:
    tenant, key = pipeline.tenant()
    body = b"".join(order(n) for n in range(1500))
    first = pipeline.post(tenant, key, "orders", body, Idempotency_Key='"once"')
    second = pipeline.post(tenant, key, "orders", body, Idempotency_Key="once")
    assert first.json()["event_ids"] == second.json()["event_ids"]
    assert len(first.json()["event_ids"]) == 2
    tally = pipeline.drained().tenants[tenant]
    assert tally.accepted == 3000
    assert tally.outcomes == {"applied": 1500, "superseded": 0, "duplicate": 1500, "conflict": 0, "rejected": 0}
    assert pipeline.sql("SELECT count(*), max(revision) FROM orders WHERE tenant_id = %s", tenant) == [(1500, 0)]


def test_another_body_under_the_same_key_is_a_conflict_and_changes_nothing(pipeline: Pipeline) -> None:
    tenant, key = pipeline.tenant()
    pipeline.post(tenant, key, "orders", order(1), Idempotency_Key="k")
    pipeline.post(tenant, key, "orders", order(1, total_amount="99.00"), Idempotency_Key="k")
    assert pipeline.drained().tenants[tenant].outcomes["conflict"] == 1
    assert pipeline.sql("SELECT total_amount::text FROM orders WHERE tenant_id = %s", tenant) == [("12.50",)]


def test_an_older_version_never_overwrites_a_newer_one(pipeline: Pipeline) -> None:
    tenant, key = pipeline.tenant()
    new = order(1, order_status="shipped", updated_at="2026-03-02T00:00:00Z")
    old = order(
        1,
        order_status="paid",
        updated_at="2026-03-01T00:00:00Z",
        items=[{"product_id": "P", "quantity": 1, "unit_price": 12.5}],
    )
    for body in (new, old):
        pipeline.post(tenant, key, "orders", body)
        tally = pipeline.drained().tenants[tenant]
    assert (tally.outcomes["applied"], tally.outcomes["superseded"]) == (1, 1)
    assert pipeline.sql("SELECT order_status FROM orders WHERE tenant_id = %s", tenant) == [("shipped",)]
    assert pipeline.sql("SELECT * FROM order_items WHERE tenant_id = %s", tenant) == []


def test_a_date_in_the_far_future_freezes_nothing(pipeline: Pipeline) -> None:
    tenant, key = pipeline.tenant()
    pipeline.post(tenant, key, "orders", order(1, updated_at="2099-01-01T00:00:00Z"))
    pipeline.drained()
    pipeline.post(tenant, key, "orders", order(1, order_status="refunded"))
    pipeline.drained()
    assert pipeline.sql("SELECT order_status FROM orders WHERE tenant_id = %s", tenant) == [("refunded",)]


def test_a_replaced_order_has_the_new_items_only(pipeline: Pipeline) -> None:
    tenant, key = pipeline.tenant()
    item = {"product_id": "P-1", "quantity": 1, "unit_price": "1.00"}
    pipeline.post(
        tenant, key, "orders", order(1, items=[item] * 3, total_amount=3) + order(2, items=[item], total_amount=1)
    )
    pipeline.drained()
    pipeline.post(tenant, key, "orders", order(1, items=[item | {"product_id": "P-9"}], total_amount=1) + order(2))
    pipeline.drained()
    assert pipeline.sql("SELECT external_order_id, product_id FROM order_items WHERE tenant_id = %s", tenant) == [
        ("A-1", "P-9")
    ]


def test_versions_of_a_record_in_one_body_are_applied_one_after_the_other(pipeline: Pipeline) -> None:
    tenant, key = pipeline.tenant()
    item = {"product_id": "P", "quantity": 1, "unit_price": "12.50"}
    pipeline.post(
        tenant, key, "orders",
        order(1, order_status="pending", items=[item])
        + order(1, order_status="paid", updated_at="2020-01-01T00:00:00Z")
        + order(1, order_status="shipped"),
    )  # fmt: skip
    tally = pipeline.drained().tenants[tenant]
    assert (tally.outcomes["applied"], tally.outcomes["superseded"]) == (2, 1)
    assert pipeline.sql("SELECT order_status FROM orders WHERE tenant_id = %s", tenant) == [("shipped",)]
    assert pipeline.sql("SELECT * FROM order_items WHERE tenant_id = %s", tenant) == []


def test_a_taken_sku_rejects_that_row_alone(pipeline: Pipeline) -> None:
    tenant, key = pipeline.tenant()
    rows = [{"product_id": f"P-{n}", "sku": f"S-{n}", "name": "x", "price": 1} for n in range(200)]
    rows[117]["sku"] = "S-3"
    pipeline.post(tenant, key, "products", "\n".join(map(json.dumps, rows)))
    tally = pipeline.drained().tenants[tenant]
    assert (tally.outcomes["applied"], tally.outcomes["rejected"]) == (199, 1)
    [error] = pipeline.sql("SELECT line, code, natural_id FROM row_errors WHERE tenant_id = %s", tenant)
    assert error == (118, "sku_taken", "P-117")


def test_a_version_that_is_refused_leaves_the_one_before_it(pipeline: Pipeline) -> None:
    tenant, key = pipeline.tenant()
    rows = [("P-1", "S-1"), ("P-2", "S-2"), ("P-2", "S-1")]
    body = "\n".join(json.dumps({"product_id": p, "sku": s, "name": "x", "price": 1}) for p, s in rows)
    pipeline.post(tenant, key, "products", body)
    tally = pipeline.drained().tenants[tenant]
    assert (tally.outcomes["applied"], tally.outcomes["rejected"]) == (2, 1)
    assert pipeline.sql("SELECT product_id, sku FROM products WHERE tenant_id = %s ORDER BY 1", tenant) == [
        ("P-1", "S-1"), ("P-2", "S-2"),
    ]  # fmt: skip


@pytest.mark.parametrize("split", [False, True])
def test_a_sku_is_free_once_it_was_given_up_earlier_in_the_log(pipeline: Pipeline, *, split: bool) -> None:
    tenant, key = pipeline.tenant()
    # P-1 gives up S-1, P-2 takes it; P-3 wants P-4's before that gives it up, and P-4's new one is taken once more.
    moves = [("P-1", "S-9"), ("P-2", "S-1"), ("P-3", "S-4"), ("P-4", "S-8"), ("P-5", "S-8"), ("P-5", "S-4")]
    products = [[(f"P-{n}", f"S-{n}") for n in range(1, 6)], *([move] for move in moves)]
    for rows in products if split else [products[0], moves]:
        body = "\n".join(json.dumps({"product_id": p, "sku": s, "name": "x", "price": 1}) for p, s in rows)
        pipeline.post(tenant, key, "products", body)
        tally = pipeline.drained().tenants[tenant]
    assert tally.outcomes | {"applied": 9, "superseded": 0, "rejected": 2} == tally.outcomes
    assert pipeline.sql("SELECT product_id, sku FROM products WHERE tenant_id = %s ORDER BY 1", tenant) == [
        ("P-1", "S-9"), ("P-2", "S-1"), ("P-3", "S-3"), ("P-4", "S-8"), ("P-5", "S-4"),
    ]  # fmt: skip


def test_a_sku_that_thousands_of_products_have_is_soon_refused(pipeline: Pipeline) -> None:
    tenant, key = pipeline.tenant()
    products = [{"product_id": f"P-{n}", "sku": "N/A", "name": "x", "price": 1} for n in range(5_000)]
    pipeline.post(tenant, key, "products", "\n".join(map(json.dumps, products)))
    tally = pipeline.drained(within=8).tenants[tenant]  # one by one it takes a minute
    assert (tally.outcomes["applied"], tally.outcomes["rejected"]) == (1, 4_999)


def test_tenants_with_the_same_ids_do_not_meet(pipeline: Pipeline) -> None:
    (one, key_one), (two, key_two) = pipeline.tenant(), pipeline.tenant()
    pipeline.post(one, key_one, "orders", order(1, order_status="paid"))
    pipeline.post(two, key_two, "orders", order(1, order_status="cancelled"))
    pipeline.drained()
    for tenant, status in ((one, "paid"), (two, "cancelled")):
        assert pipeline.sql("SELECT order_status FROM orders WHERE tenant_id = %s", tenant) == [(status,)]


def test_reject_publishes_all_or_nothing_and_validate_only_nothing(pipeline: Pipeline) -> None:
    tenant, key = pipeline.tenant()
    bad = order(2, currency="euro")
    assert pipeline.post(tenant, key, "orders", order(1) + bad, "?on_error=reject").status_code == 422
    dry = pipeline.post(tenant, key, "orders", order(1) + bad, "?validate_only=true")
    assert (dry.status_code, dry.json()["accepted"], dry.json()["rejected"]) == (200, 1, 1)
    assert pipeline.post(tenant, key, "orders", order(3), "?on_error=reject").status_code == 202
    assert pipeline.drained().tenants[tenant].accepted == 1
