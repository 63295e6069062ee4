"""Each read finds its rows by the index that was made for it, as the reader, under row-level security."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from pipeline import READER_PASSWORD, Pipeline
from psycopg.sql import SQL
from records import fill
from starlette.datastructures import QueryParams

from deploy import credentials
from gateway import database, filters
from gateway.reads import select

TENANT = "two"


@pytest.fixture(scope="module")
def reader() -> Iterator[psycopg.Connection[Any]]:
    """The gateway's login in a database of some tenants, one of which it reads as."""
    with Pipeline.database() as url:
        with psycopg.connect(url, autocommit=True) as db:
            for tenant in ("one", TENANT, "three"):
                fill(
                    db,
                    tenant,
                    products=3_000,
                    customers=5_000,
                    orders=20_000,
                    stock=3_000,
                    movements=20_000,
                    prices=20_000,
                    stock_outs=300,
                    days=2_000,
                )
            db.execute(
                "VACUUM ANALYZE products, customers, orders, order_items, stock_levels, stock_movements, price_changes,"
                " tenant_daily_metrics"
            )
        with psycopg.connect(credentials.reader_url(url, READER_PASSWORD)) as db:
            for name, value in (database.READING | {"app.tenant_id": TENANT}).items():
                db.execute("SELECT set_config(%s, %s, false)", [name, value])
            yield db


def plan(
    db: psycopg.Connection[Any], entity: str, query: str, limit: int | None, after: str | None = None
) -> list[dict[str, Any]]:
    """The nodes of the plan of a read; an index by the name that its migration gave it. `after` is a condition."""
    source, where = filters.conditions(entity, TENANT, filters.read(entity, QueryParams(query), ()))
    if entity in ("stock_history", "price_history"):
        where.append(SQL("product_id = 'P-7'").format())
    if after is not None:
        where.append(SQL(after).format())
    explain = SQL("EXPLAIN (FORMAT JSON) {}").format(select(entity, TENANT, where, limit, SQL("revenue"), source))
    row = db.execute(explain).fetchone()
    assert row is not None
    parents = dict(db.execute("SELECT inhrelid::regclass::text, inhparent::regclass::text FROM pg_inherits").fetchall())

    def nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
        name = node.get("Index Name", "")
        yield node | {"Index Name": parents.get(name, name) or None}
        for below in node.get("Plans", ()):
            yield from nodes(below)

    return list(nodes(row[0][0]["Plan"]))


BY_DATE, ITEMS, OF_PRODUCT = "orders_newest", "order_items_pkey", "order_items_of_product"
READS = [
    ("orders", "", {BY_DATE, ITEMS}),
    ("orders", "from=2026-01-02&to=2026-01-03", {BY_DATE, ITEMS}),
    ("orders", "currency=USD", {BY_DATE, ITEMS}),
    ("orders", "status=delivered", {BY_DATE, ITEMS}),
    ("orders", "status=paid", {"orders_of_status", ITEMS}),
    ("orders", "customer_id=C-7", {"orders_of_customer", ITEMS}),
    ("orders", "product_id=P-7", {OF_PRODUCT, ITEMS}),
    ("orders", "sku=SKU-7", {OF_PRODUCT, ITEMS, "sku_taken"}),
    ("products", "", {"products_pkey"}),
    ("products", "sku=SKU-7", {"sku_taken"}),
    ("products", "category=category 3", {"products_of_category"}),
    ("products", "active=false", {"products_inactive"}),
    ("products", "active=true", {"products_pkey"}),
    ("customers", "", {"customers_pkey"}),
    ("customers", "email=c9@example.com", {"customers_of_email"}),
    ("customers", "country=FR", {"customers_pkey"}),
    ("stock", "", {"stock_levels_pkey"}),
    ("stock", "product_id=P-7", {"stock_levels_pkey"}),
    ("stock", "product_id=P-7&product_id=P-70", {"stock_levels_pkey"}),
    ("stock", "below=500", {"stock_levels_pkey"}),
    ("stock_history", "", {"stock_movements_pkey"}),
    ("stock_history", "outcome=rejected", {"stock_movements_pkey"}),
    ("price_history", "", {"price_changes_pkey"}),
    ("price_history", "status=rejected", {"price_changes_pkey"}),
    ("price_alerts", "", {"price_alerts", "price_decisions", "price_changes_pkey"}),
    ("price_alerts", "from=2026-01-02&to=2026-01-12", {"price_alerts", "price_decisions", "price_changes_pkey"}),
    ("price_alerts", "status=held", {"price_alerts", "price_decisions", "price_changes_pkey"}),
    ("price_alerts", "name=jump", {"price_alerts", "price_decisions", "price_changes_pkey"}),
    ("price_alerts", "min_score=90", {"price_alerts", "price_decisions", "price_changes_pkey"}),
    ("daily_metrics", "", {"tenant_daily_metrics_pkey"}),
    ("daily_metrics", "from=2026-02-01&to=2026-03-01", {"tenant_daily_metrics_pkey"}),
    ("daily_metrics", "currency=USD", {"tenant_daily_metrics_pkey"}),
]
FEW = {
    "from=2026-02-01&to=2026-03-01",
    "product_id=P-7",
    "product_id=P-7&product_id=P-70",
    "sku=SKU-7",
    "category=category 3",
    "active=false",
    "outcome=rejected",
    "status=rejected",
}
"""Reads that match so few rows here that they may be found first and then sorted."""


@pytest.mark.parametrize(("entity", "query", "indexes"), READS)
def test_a_page_uses_its_index(reader: psycopg.Connection[Any], entity: str, query: str, indexes: set[str]) -> None:
    nodes = plan(reader, entity, query, 101)
    assert indexes <= {node["Index Name"] for node in nodes}
    assert not [node for node in nodes if node["Node Type"] == "Seq Scan"]
    sorts = [node["Plan Rows"] for node in nodes if "Sort" in node["Node Type"] and node.get("Sort Key") != ["id.id"]]
    assert sorts == [] if query not in FEW else all(rows < 200 for rows in sorts)


@pytest.mark.parametrize(("entity", "key"), [("products", "product_id"), ("stock", "product_id")])
@pytest.mark.parametrize("limit", [101, None])
def test_what_follows_a_cursor_begins_there_in_the_index(
    reader: psycopg.Connection[Any], entity: str, key: str, limit: int | None
) -> None:
    [scan] = [node for node in plan(reader, entity, "", limit, f"{key} > 'P-2990'") if "Index Cond" in node]
    assert f"({key} > 'P-2990'::text)" in scan["Index Cond"]
    assert "Filter" not in scan


# Counted when asked for: they sort what they find, so that it matters only how they find it.
COUNTED = [
    # A small part of the orders; where it is a large one, their items are rather read whole.
    ("top_products", "from=2026-01-08&to=2026-01-09&currency=EUR", {BY_DATE, ITEMS, "products_pkey"}),
    ("stock_outs", "from=2026-02-01&to=2026-03-01", {"stock_outs"}),
    ("price_anomalies", "from=2026-01-02&to=2026-01-04", {"price_alerts"}),
]


@pytest.mark.parametrize(("entity", "query", "indexes"), COUNTED)
def test_a_figure_finds_its_rows_by_its_index(
    reader: psycopg.Connection[Any], entity: str, query: str, indexes: set[str]
) -> None:
    nodes = plan(reader, entity, query, 101)
    assert {node["Index Name"] for node in nodes} - {None} == indexes
    assert not [node for node in nodes if node["Node Type"] == "Seq Scan"]


def test_the_policy_of_row_level_security_is_decided_once(reader: psycopg.Connection[Any]) -> None:
    nodes = plan(reader, "orders", "", 101)
    assert all("current_setting" not in node.get(part, "") for node in nodes for part in ("Filter", "Index Cond"))
    assert any("current_setting" in node.get("One-Time Filter", "") for node in nodes)
