"""The generator's data is repeatable, adds up, refers to what exists, and costs no memory."""

import csv
import hashlib
import json
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producers import datasets, generate
from producers.generate import Plan

SMALL = generate.PRESETS["small"]
LARGE = generate.PRESETS["large"]
STATUSES = {"pending", "paid", "processing", "shipped", "delivered", "cancelled", "refunded"}


def rows(lines: Iterable[bytes]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines]


def number(identifier: str) -> int:
    """The row number in an identifier such as `P-17`."""
    return int(identifier.split("-")[1])


def digest(plan: Plan, tenant_index: int) -> str:
    state = hashlib.sha256()
    for make in generate.FILES.values():
        for line in make(plan, tenant_index):
            state.update(line)
    return state.hexdigest()


def test_same_seed_makes_the_same_bytes_for_ever() -> None:
    # Written down, so that another process, machine, Python version or careless edit shows.
    assert digest(Plan(1, 50, 200), 0) == "9138de7e794423c6eccb126abb6a4997ec78a9c2acfc9d2b8b792e4b007443f2"


@pytest.mark.parametrize("make", generate.FILES.values(), ids=generate.FILES)
def test_another_seed_or_tenant_makes_other_bytes(make: Callable[..., Iterable[bytes]]) -> None:
    first, seeded = b"".join(make(SMALL, 0)), b"".join(make(Plan(2, 500, 2_500, seed=8), 0))
    assert len({first, seeded, b"".join(make(SMALL, 1))}) == 3


@settings(max_examples=40, deadline=None)
@given(kind=st.sampled_from(sorted(generate.FILES)), start=st.integers(0, 2_400), count=st.integers(0, 60))
def test_any_row_can_be_made_without_the_ones_before(kind: str, start: int, count: int) -> None:
    make = generate.FILES[kind]
    everything = list(make(SMALL, 1))
    start = min(start, len(everything))
    count = min(count, len(everything) - start)
    assert list(make(SMALL, 1, start, count)) == everything[start : start + count]


def test_chunk_size_changes_nothing_in_the_data() -> None:
    assert digest(Plan(1, 50, 200, chunk_size=3), 0) == digest(Plan(1, 50, 200), 0)


@pytest.mark.parametrize("tenant_index", range(12))
def test_totals_add_up_and_references_exist(tenant_index: int) -> None:
    plan = Plan(tenants=12, products_per_tenant=300, orders_per_tenant=1_200)
    prices = {row["product_id"]: row["price"] for row in rows(generate.products(plan, tenant_index))}
    people = {row["customer_id"]: row for row in rows(generate.customers(plan, tenant_index))}
    orders = rows(generate.orders(plan, tenant_index))
    assert (len(prices), len(people), len(orders)) == (300, 300, 1_200)
    for order in orders:
        items = order["items"]
        total = sum(item["quantity"] * Decimal(item["unit_price"]) for item in items)
        assert Decimal(order["total_amount"]) == total > 0
        assert [item["unit_price"] for item in items] == [prices[item["product_id"]] for item in items]
        assert len({item["product_id"] for item in items}) == len(items)
        customer = people[order["customer_id"]]
        assert (order["customer_name"], order["customer_email"]) == (customer["name"], customer["email"])
        assert order["order_status"] in STATUSES


def test_money_and_times_have_the_contract_form() -> None:
    money, times = list[str](), list[str]()
    for make in generate.FILES.values():
        for row in rows(make(SMALL, 0)):
            names = ("price", "total_amount", "old_price", "new_price")
            money += [row[name] for name in names if name in row]
            times += [row[name] for name in ("updated_at", "order_date", "occurred_at") if name in row]
            assert row.get("updated_at", "9") >= row.get("order_date", "")
    assert all(Decimal(amount).as_tuple().exponent == -2 and Decimal(amount) > 0 for amount in money)
    assert {datetime.fromisoformat(text).year for text in times} == {2025}
    assert all(text.endswith("Z") for text in times)


def test_identifiers_are_unique() -> None:
    plan = Plan(1, 2_000, 8_000)
    streams = (
        ("customer_id", generate.customers),
        ("product_id", generate.products),
        ("sku", generate.products),
        ("external_order_id", generate.orders),
        ("event_id", generate.stock_events),
    )
    for name, make in streams:
        identifiers = [row[name] for row in rows(make(plan, 0))]
        assert len(set(identifiers)) == len(identifiers), name
    assert len({generate.tenant_id(tenant_index) for tenant_index in range(50)}) == 50


@pytest.mark.parametrize("plan", generate.PRESETS.values(), ids=generate.PRESETS)
def test_the_top_hundredth_of_products_sells_more_than_15_percent(plan: Plan) -> None:
    orders = rows(generate.orders(plan, 0, count=2_500))
    sold = [number(item["product_id"]) for order in orders for item in order["items"]]
    top = sum(product < plan.products_per_tenant // 100 for product in sold)
    assert max(sold) < plan.products_per_tenant
    assert 0.15 < top / len(sold) < 0.5


def test_every_product_can_be_sold() -> None:
    sold = {item["product_id"] for order in rows(generate.orders(Plan(1, 40, 4_000), 0)) for item in order["items"]}
    assert len(sold) == 40


def test_customers_return_and_days_have_a_rhythm() -> None:
    orders = rows(generate.orders(SMALL, 0))
    regulars = [count for _, count in Counter(order["customer_id"] for order in orders).items() if count > 1]
    assert sum(regulars) > len(orders) * 0.8
    hours = Counter(order["order_date"][11:13] for order in orders)
    assert hours["20"] > 5 * hours["03"]
    days = [order["order_date"][:10] for order in orders]
    assert days == sorted(days)
    assert len(set(days)) == 365


def test_a_tenant_has_one_main_currency_and_a_tail_of_others() -> None:
    currencies = Counter(order["currency"] for order in rows(generate.orders(SMALL, 1)))
    (main, count), *tail = currencies.most_common()
    assert main == "EUR"
    assert 0.8 < count / SMALL.orders_per_tenant < 0.95
    assert len(tail) >= 5


def test_stock_opens_with_a_set_of_each_product_and_stays_non_negative_but_for_adjustments() -> None:
    events = rows(generate.stock_events(SMALL, 0))
    assert len(events) == SMALL.stock_events_per_tenant
    opening, movements = events[:500], events[500:]
    assert {(event["kind"], number(event["product_id"])) for event in opening} == {("set", n) for n in range(500)}
    assert {event["kind"] for event in movements} == {"sold", "received", "returned", "adjusted"}
    assert all(event["quantity"] > 0 or event["kind"] == "adjusted" for event in events)
    assert max(number(event["product_id"]) for event in events) < 500


def test_each_old_price_is_the_new_price_before_it() -> None:
    events = rows(generate.price_events(SMALL, 0))
    assert len(events) == SMALL.price_events_per_tenant
    current = {row["product_id"]: row["price"] for row in rows(generate.products(SMALL, 0))}
    for event in events:
        assert set(event) == {"product_id", "old_price", "new_price", "currency", "source"}
        assert event["old_price"] == current[event["product_id"]] != event["new_price"]
        current[event["product_id"]] = event["new_price"]
    jumps = sum(not 0.5 < float(event["new_price"]) / float(event["old_price"]) < 2 for event in events)
    assert 0 < jumps < len(events) * 0.05


@pytest.mark.parametrize("tenant_index", range(12))
@pytest.mark.parametrize("plan", generate.PRESETS.values(), ids=generate.PRESETS)
def test_benchmark_lines_have_about_240_bytes_and_are_the_same_orders(plan: Plan, tenant_index: int) -> None:
    lines = list(generate.order_240(plan, tenant_index, 1_000, 500))
    assert 230 < sum(map(len, lines)) / len(lines) < 250
    with_items = rows(generate.orders(plan, tenant_index, 1_000, 500))
    assert rows(lines) == [
        {name: value for name, value in order.items() if name not in ("items", "updated_at")} for order in with_items
    ]


def test_the_first_row_of_two_million_comes_at_once() -> None:
    plan = Plan(tenants=1, products_per_tenant=500_000, orders_per_tenant=2_000_000, seed=99)
    began = time.process_time()  # not the wall clock: the machine may be busy with something else
    for make in generate.FILES.values():
        next(iter(make(plan, 0)))
    assert time.process_time() - began < 1


def test_memory_does_not_grow_with_the_rows() -> None:
    next(generate.orders(LARGE, 0))  # the tables, of constant size
    tracemalloc.start()
    try:
        for _ in islice(generate.orders(LARGE, 0), 5_000):
            pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 500_000  # the lines would be 2,000,000


def test_bad_rows_are_bad_in_the_way_they_say() -> None:
    bad = {description: line for line, description in generate.bad_rows(0)}
    checks: dict[str, Callable[[dict[str, Any]], bool]] = {
        "negative amount": lambda row: Decimal(row["total_amount"]) < 0,
        "three decimals": lambda row: Decimal(row["total_amount"]).as_tuple().exponent == -3,
        "date without offset": lambda row: datetime.fromisoformat(row["order_date"]).tzinfo is None,
        "unknown status": lambda row: row["order_status"] not in STATUSES,
        "missing currency": lambda row: "currency" not in row,
    }
    assert set(bad) == {*checks, "not JSON"}
    with pytest.raises(ValueError):
        json.loads(bad["not JSON"])
    assert all(line.endswith(b"\n") and line.count(b"\n") == 1 for line in bad.values())
    for description in checks:
        row = json.loads(bad[description])
        assert [name for name, check in checks.items() if check(row)] == [description]


def test_write_makes_a_complete_set_and_reports_every_row(tmp_path: Path) -> None:
    plan, heard = Plan(3, 40, 200, chunk_size=64), Counter[str]()
    datasets.write(plan, tmp_path, lambda file, count: heard.update({file: count}))
    with (tmp_path / "tenants.csv").open(encoding="utf-8", newline="") as file:
        tenants = list(csv.DictReader(file))
    assert [tenant["tenant_id"] for tenant in tenants] == ["acme-001", "nordlicht-002", "harbour-003"]
    assert [tenant["currency"] for tenant in tenants] == ["USD", "EUR", "GBP"]
    for index, tenant in enumerate(tenants):
        for name, make in generate.FILES.items():
            text = (tmp_path / tenant["tenant_id"] / name).read_bytes()
            assert text == b"".join(make(plan, index))
            assert heard[f"{tenant['tenant_id']}/{name}"] == text.count(b"\n")
    assert heard.total() == plan.total_rows
    assert not list(tmp_path.rglob("*.part"))


def test_a_killed_run_leaves_no_half_file_under_a_final_name(tmp_path: Path) -> None:
    class KilledError(Exception):
        pass

    def kill(file: str, _: int) -> None:
        if file.endswith("/orders.ndjson"):
            raise KilledError

    datasets.write(Plan(1, 40, 200), tmp_path)
    before = (tmp_path / "acme-001" / "orders.ndjson").read_bytes()
    with pytest.raises(KilledError):
        datasets.write(Plan(1, 40, 200, seed=8, chunk_size=50), tmp_path, kill)
    assert (tmp_path / "acme-001" / "orders.ndjson").read_bytes() == before
    assert not (tmp_path / "tenants.csv").exists()


def test_a_plan_says_what_is_wrong_with_it() -> None:
    with pytest.raises(ValueError, match="orders_per_tenant must be at least 1"):
        Plan(tenants=1, products_per_tenant=1, orders_per_tenant=0)


def test_the_smallest_plan_works() -> None:
    for make in generate.FILES.values():
        assert rows(make(Plan(1, 1, 1), 0))
