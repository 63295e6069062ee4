"""Rows that have the right shape and make no sense."""

import json
from typing import Any

import pytest

from producers.tenants import Policies
from schemas.rows import as_json
from sinks.meaning import faults


def cents(amount: int) -> bytes:
    return amount.to_bytes(8, "big", signed=True)


def order(total: int = 1250, currency: str = "EUR", items: tuple[tuple[int, int], ...] = ()) -> dict[str, Any]:
    listed = [{"product_id": "P", "quantity": quantity, "unit_price": cents(price)} for quantity, price in items]
    return {"line": 3, "total_amount": cents(total), "currency": currency, "items": listed}


def codes(row: dict[str, Any], entity: str = "orders", **policies: Any) -> list[str]:
    return [code for _, code, _ in faults(entity, row, Policies(**policies))]


@pytest.mark.parametrize(
    ("total", "items", "order_totals", "expected"),
    [
        (1250, ((2, 500), (1, 250)), "exact", []),
        (1251, ((2, 500), (1, 250)), "exact", ["total_mismatch"]),
        (1249, ((2, 500), (1, 250)), "exact", ["total_mismatch"]),
        (1251, ((2, 500), (1, 250)), "at_least", []),
        (1249, ((2, 500), (1, 250)), "at_least", ["total_mismatch"]),
        (1, ((2, 500),), "any", []),
        (1, (), "exact", []),
        (10**12 - 1, ((10**9, 10**12 - 1),), "exact", ["total_mismatch"]),
    ],
)
def test_a_total_is_what_the_policy_asks_of_the_sum_of_the_items(
    total: int, items: tuple[tuple[int, int], ...], order_totals: str, expected: list[str]
) -> None:
    assert codes(order(total, items=items), order_totals=order_totals) == expected


def test_a_currency_exists_and_is_one_of_the_tenants() -> None:
    assert codes(order(currency="XXQ")) == ["unknown_currency"]
    assert codes(order(currency="SEK")) == []
    assert codes(order(currency="SEK"), currencies=("EUR", "CHF")) == ["currency_not_allowed"]
    assert codes({"currency": "eur"}, "products") == ["unknown_currency"]
    assert codes({}, "customers") == []


def test_all_that_is_wrong_is_said() -> None:
    assert codes(order(1, "XXQ", ((1, 5),))) == ["unknown_currency", "total_mismatch"]


def test_a_record_is_shown_as_the_merchant_sent_it() -> None:
    row = order(items=((2, 625),)) | {
        "external_order_id": "A-1", "customer_id": None, "order_date": 1_767_225_600_000_000,
        "raw_payload": '{"gift":1.50}', "updated_at": 10**18,
    }  # fmt: skip
    assert json.loads(as_json(row)) == {
        "external_order_id": "A-1",
        "total_amount": "12.50",
        "currency": "EUR",
        "order_date": "2026-01-01T00:00:00Z",
        "items": [{"product_id": "P", "quantity": 2, "unit_price": "6.25"}],
        "raw_payload": {"gift": 1.5},
        "updated_at": 10**18,
    }
    deep = "[" * 100_000
    assert json.loads(as_json({"raw_payload": deep}))["raw_payload"] == deep
