"""A page of a product's orders costs what it shows, however many orders have the product and wherever they lie."""

import os
import secrets
from collections import Counter
from collections.abc import Iterator
from importlib import resources
from typing import Any

import psycopg
import pytest
from pipeline import READER_PASSWORD, Pipeline
from psycopg.sql import SQL
from records import fill
from starlette.datastructures import QueryParams

from deploy import credentials
from deploy.stack import create_database
from gateway import database, filters
from gateway.reads import select

TENANT, ORDERS, PAGE = "large", 200_000, 101
# A minute apart. Half of all have P-half, the oldest 1% P-old, twice each, four P-few, and nobody P-none.
DATES = "UPDATE orders SET order_date = timestamptz '2026-01-01Z' + version_offset * interval '1 minute'"
ITEMS = """
INSERT INTO order_items (tenant_id, external_order_id, item, product_id, quantity, unit_price, ordered_at)
SELECT tenant_id, external_order_id, item,
       CASE WHEN item = 0 AND version_offset % 2 = 0 THEN 'P-half'
            WHEN item > 0 AND version_offset <= 2000 THEN 'P-old'
            WHEN item = 0 AND version_offset % 50000 = 7 THEN 'P-few'
            ELSE 'P-' || (version_offset * 31 + item * 17) % 1000 END, 1, 1, order_date
FROM orders, generate_series(0, 2) item
"""
PRODUCTS = """
INSERT INTO products (tenant_id, product_id, id, sku, name, price, currency, active, version_at, version_offset,
                      version_row)
SELECT 'large', 'P-' || name, gen_random_uuid(), 'SKU-' || name, name, 1, 'EUR', true, now(), 1, 1
FROM unnest(ARRAY['half', 'old', 'few', 'none']) name
"""


@pytest.fixture(scope="module")
def owner() -> Iterator[psycopg.Connection[Any]]:
    """The owner of a database with one tenant of 200,000 orders."""
    with Pipeline.database() as url, psycopg.connect(url, autocommit=True) as db:
        fill(db, TENANT, **{"bare orders": ORDERS})
        for statement in (DATES, ITEMS, PRODUCTS):
            db.execute(statement.encode())
        yield db


@pytest.fixture(scope="module", params=["known", "unknown"])
def reader(owner: psycopg.Connection[Any], request: pytest.FixtureRequest) -> Iterator[psycopg.Connection[Any]]:
    """The gateway's login, when the planner knows the tables, and while it knows nothing of them."""
    owner.execute("VACUUM ANALYZE orders, order_items, products, customers")
    if request.param == "unknown":
        owner.execute("DELETE FROM pg_statistic WHERE starelid::regclass::text ~ '^(orders|order_items|products)_'")
    url = os.environ["DATABASE_URL"].rpartition("/")[0] + f"/{owner.info.dbname}"
    with psycopg.connect(credentials.reader_url(url, READER_PASSWORD)) as db:
        for name, value in (database.READING | {"app.tenant_id": TENANT}).items():
            db.execute("SELECT set_config(%s, %s, false)", [name, value])
        yield db


def page(query: str, after: str | None = None) -> Any:
    """The statement of a page, whose cursor is an SQL row."""
    source, where = filters.conditions("orders", TENANT, filters.read("orders", QueryParams(query), ()))
    if after is not None:
        where.append(SQL("(order_date, external_order_id) < {}").format(SQL(after)))  # type: ignore[arg-type]
    return select("orders", TENANT, where, PAGE, source=source)


def walked(db: psycopg.Connection[Any], statement: Any) -> Counter[str]:
    """How many rows of each table were looked at, wanted or not."""
    row = db.execute(SQL("EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {}").format(statement)).fetchone()
    assert row is not None
    rows: Counter[str] = Counter()

    def walk(node: dict[str, Any]) -> None:
        if "Relation Name" in node:
            seen = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
            rows[node["Relation Name"].rpartition("_")[0]] += round(seen * node["Actual Loops"])
        for below in node.get("Plans", ()):
            walk(below)

    walk(row[0][0]["Plan"])
    return rows


CASES = [
    ("product_id=P-none", 0),
    ("product_id=nobody-has-it", 0),
    ("sku=SKU-none", 0),
    ("sku=nobody-has-it", 0),
    ("product_id=P-few", 4),
    ("sku=SKU-few", 4),
    ("product_id=P-old", PAGE),
    ("sku=SKU-old", PAGE),
    ("product_id=P-half", PAGE),
    ("sku=SKU-half", PAGE),
    ("product_id=P-half&from=2026-01-01&to=2026-01-02", PAGE),
    ("product_id=P-old&from=2026-01-03", 0),
    ("customer_id=C-8&product_id=P-half", 0),
    ("customer_id=C-9&product_id=P-half", 40),
]


MANY = {"half": 100_000, "old": 4_000}
"""Items of a product that has more of them than a page."""


@pytest.mark.parametrize(("query", "shown"), CASES)
def test_a_page_looks_at_what_it_shows(
    reader: psycopg.Connection[Any], request: pytest.FixtureRequest, query: str, shown: int
) -> None:
    assert len(reader.execute(page(query)).fetchall()) == shown
    rows = walked(reader, page(query))
    looked_up = 40 if "customer" in query else shown  # a customer's orders are looked through
    assert rows["orders"] <= looked_up
    # Each order's three items are shown; before that at most as many were looked at to find it, and those of one more.
    most = 3 * shown + 3 * looked_up + 3
    if request.node.callspec.params["reader"] == "unknown":  # it may sort the product's own items, but no others
        most += sum(count for name, count in MANY.items() if name in query)
    assert rows["order_items"] <= most


@pytest.mark.parametrize("product", ["P-half", "P-old"])
def test_a_later_page_begins_where_the_one_before_ended(reader: psycopg.Connection[Any], product: str) -> None:
    order = "ORDER BY ordered_at DESC, external_order_id DESC"
    found = reader.execute(
        f"SELECT DISTINCT ordered_at, external_order_id FROM order_items WHERE product_id = %s {order}".encode(),
        [product],
    ).fetchall()
    at = len(found) // 2
    date, order_id = found[at]
    statement = page(f"product_id={product}", f"('{date.isoformat()}', '{order_id}')")
    ids = [row[0] for row in reader.execute(statement).fetchall()]
    assert ids == [order_id for _, order_id in found[at + 1 : at + 1 + PAGE]]
    rows = walked(reader, statement)
    assert rows["orders"] == PAGE
    assert rows["order_items"] <= 5 * PAGE + 2


BEFORE = """
INSERT INTO order_items (tenant_id, external_order_id, item, product_id, quantity, unit_price)
SELECT tenant_id, external_order_id, %s, 'P-1', 1, 1 FROM orders
"""
LATE = "SELECT count(*) FROM order_items JOIN orders USING (tenant_id, external_order_id) WHERE ordered_at = order_date"


def test_the_migration_dates_what_is_there_and_what_an_older_sink_still_writes() -> None:
    server, name = os.environ["DATABASE_URL"], f"t_{secrets.token_hex(6)}"
    migrations = sorted(resources.files("sinks").joinpath("migrations").iterdir(), key=lambda file: file.name)
    try:
        with psycopg.connect(create_database(server, name)) as db:
            for file in migrations:
                if file.name.startswith("0014"):
                    fill(db, "acme", **{"bare orders": 500})
                    db.execute(BEFORE, [0])
                db.execute(file.read_bytes())
            db.execute("SET ROLE tillstream_writer")
            db.execute(BEFORE, [1])
            assert db.execute(LATE).fetchone() == (1_000,)
    finally:
        with psycopg.connect(server, autocommit=True) as db:
            db.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'.encode())
