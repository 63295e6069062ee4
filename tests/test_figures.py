"""Figures over HTTP: counted ahead or when asked for, they are what the rows beneath them say."""

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from pipeline import Pipeline
from reader import Reader
from records import fill
from shop import problem

from schemas import topics

NDJSON, CSV = "application/x-ndjson", "text/csv"
FIGURES = ("metrics/daily", "metrics/top-products", "metrics/stock-outs", "metrics/price-anomalies")
FROM = {path: {} if path == "metrics/daily" else {"from": "2026-01-01"} for path in FIGURES}
SOLD = """
SELECT product_id, count(DISTINCT o.external_order_id), sum(quantity), sum(quantity * unit_price)::text
FROM orders o JOIN order_items USING (tenant_id, external_order_id)
WHERE tenant_id = %s AND currency = %s AND order_status NOT IN ('cancelled', 'refunded')
  AND order_date >= '2026-01-02Z' AND order_date < '2026-01-05Z'
GROUP BY 1 ORDER BY {} DESC, 1 LIMIT 20
"""
OUT = (
    "SELECT (logged_at AT TIME ZONE 'UTC')::date::text, count(DISTINCT product_id) FROM stock_movements"
    " WHERE tenant_id = %s AND kind = 'sold' AND quantity = 0 GROUP BY 1 ORDER BY 1 DESC"
)
ALERTS = (
    "SELECT (logged_at AT TIME ZONE 'UTC')::date::text, sum(alert::int), sum((status = 'anomaly')::int),"
    " sum((status = 'held')::int), sum((status = 'rejected')::int), count(DISTINCT product_id)"
    " FROM price_changes WHERE tenant_id = %s AND alert GROUP BY 1 ORDER BY 1 DESC"
)


@pytest.fixture(scope="module")
def reading(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """A tenant with something to count, and another beside it."""
    with Pipeline(tmp_path_factory.mktemp("figures")) as pipeline:
        pipeline.start("gateway")
        reader = Reader(pipeline)
        with psycopg.connect(pipeline.settings.database_url) as db:
            for tenant in (reader.tenant, "somebody-else"):
                fill(db, tenant, products=990, orders=5_000, movements=500, stock_outs=300, prices=20_000, days=601)
                db.execute(
                    "INSERT INTO tenants (tenant_id, name, currency, limits, policies, keys, log_offset, changed_at)"
                    " VALUES (%s, 'x', 'EUR', '{}', '{}', '[]', 1, now())",
                    [tenant],
                )
        yield reader


def test_days_are_listed_the_newest_first_page_by_page(reading: Reader) -> None:
    rows = reading.pages("metrics/daily", limit=97)
    assert rows == reading.pages("metrics/daily", limit=1000)
    assert len(rows) == 601
    assert [(row["day"], row["currency"]) for row in rows] == sorted(
        {(row["day"], row["currency"]) for row in rows}, reverse=True
    )
    assert rows[-1] == {
        "day": "2026-01-02", "currency": "USD", "orders": 3, "cancelled": 1, "refunded": 1, "revenue": "3.50",
        "customers": 3, "average_order": "3.50",
    }  # fmt: skip
    january = reading.pages("metrics/daily", **{"from": "2026-01-02", "to": "2026-02-01"}, currency="EUR")
    assert [row["day"] for row in january] == [f"2026-01-{n:02d}" for n in range(31, 2, -1)]
    assert {row["currency"] for row in january} == {"EUR"}


@pytest.mark.parametrize("path", FIGURES)
def test_streams_say_what_pages_say(reading: Reader, path: str) -> None:
    query = FROM[path]
    page = reading.page(path, limit=1000, **query)
    rows = page["data"]
    assert rows
    assert page["next_cursor"] is None
    assert [json.loads(line) for line in reading.get(path, NDJSON, **query).text.splitlines()] == rows
    table = list(csv.DictReader(io.StringIO(reading.get(path, CSV, **query).text, newline="")))
    texts = [{name: "" if value is None else str(value) for name, value in row.items()} for row in rows]
    assert table == texts
    assert len(reading.get(path, NDJSON, limit=2, **query).text.splitlines()) == 2


@pytest.mark.parametrize("by", ["revenue", "quantity"])
@pytest.mark.parametrize("currency", ["EUR", "USD"])
def test_top_products_are_those_that_sold_most(reading: Reader, by: str, currency: str) -> None:
    expected = reading.pipeline.sql(SOLD.format({"quantity": 3, "revenue": "sum(quantity * unit_price)"}[by]),
                                    reading.tenant, currency)  # fmt: skip
    query: dict[str, Any] = {"from": "2026-01-02", "to": "2026-01-05", "by": by, "limit": 20}
    page = reading.page("metrics/top-products", **query, currency=currency)
    names = ("product_id", "orders", "quantity", "revenue")
    assert [tuple(row[name] for name in names) for row in page["data"]] == expected
    assert len(expected) == 20
    assert {row["currency"] for row in page["data"]} == {currency}
    for row in page["data"]:
        known = int(row["product_id"].removeprefix("P-")) <= 990
        assert row["name"] == (f"Product {row['product_id'].removeprefix('P-')}" if known else None)
    if currency == "EUR":  # the tenant's own
        assert reading.page("metrics/top-products", **query) == page


def test_stock_outs_are_counted_a_day(reading: Reader) -> None:
    rows = reading.pages("metrics/stock-outs", limit=7, **FROM["metrics/stock-outs"])
    assert [(row["day"], row["products"]) for row in rows] == reading.pipeline.sql(OUT, reading.tenant)
    some = reading.pages("metrics/stock-outs", **{"from": "2026-01-05", "to": "2026-01-07"})
    assert [row["day"] for row in some] == ["2026-01-06", "2026-01-05"]


def test_price_anomalies_are_counted_a_day(reading: Reader) -> None:
    rows = reading.pages("metrics/price-anomalies", limit=3, **FROM["metrics/price-anomalies"])
    expected = reading.pipeline.sql(ALERTS, reading.tenant)
    assert [tuple(row.values()) for row in rows] == expected
    assert len(expected) > 10


def test_without_from_what_is_counted_when_asked_for_goes_back_30_days(reading: Reader) -> None:
    reading.pipeline.sql(
        "INSERT INTO stock_movements (tenant_id, product_id, log_offset, row_index, line, event_id, kind, moved,"
        " logged_at, outcome, quantity, version)"
        " SELECT %s, 'old', 7, n, 1, 'e', 'set', 0, now() - n * interval '1 day', 'applied', 0, 1"
        " FROM generate_series(0, 60, 10) n RETURNING 1",
        reading.tenant,
    )
    assert len(reading.page("metrics/stock-outs")["data"]) == 4
    reading.pipeline.sql("DELETE FROM stock_movements WHERE product_id = 'old' RETURNING 1")


@pytest.mark.parametrize(
    ("path", "parameter"),
    [
        ("metrics/daily?from=2026-01-01T00:00:00Z", "from"),
        ("metrics/daily?to=2026-02-30", "to"),
        ("metrics/daily?by=revenue", "by"),
        ("metrics/daily?currency=eur", "currency"),
        ("metrics/daily?from=2026-02-01&to=2026-01-31", "from"),
        ("metrics/daily?cursor=W10", "cursor"),
        ("metrics/top-products?by=profit", "by"),
        ("metrics/top-products?by=revenue&by=quantity", "by"),
        ("metrics/top-products?cursor=W10", "cursor"),
        ("metrics/stock-outs?from=yesterday", "from"),
        ("metrics/price-anomalies?product_id=1", "product_id"),
    ],
)
def test_a_bad_parameter_is_named(reading: Reader, path: str, parameter: str) -> None:
    assert problem(reading.get(path), 400, "bad_parameter")["parameter"] == parameter


def test_daily_metrics_are_as_fresh_as_they_were_counted(reading: Reader) -> None:
    settings = reading.pipeline.settings
    partition = topics.partition_of(topics.partition_key(reading.tenant), settings.partitions)
    reading.pipeline.sql(
        "INSERT INTO sink_offsets VALUES (%s, %s, 'x', 1, '2026-01-31 12:00:00Z', NULL) RETURNING topic",
        settings.named(topics.INGESTION_UNIQUE), partition,
    )  # fmt: skip
    for accept in ("*/*", NDJSON, CSV):
        assert "applied-up-to" not in reading.get("metrics/daily", accept).headers
    reading.pipeline.sql("UPDATE sink_offsets SET counted_up_to = '2026-01-30 11:00:00Z' RETURNING topic")
    for accept in ("*/*", NDJSON, CSV):
        assert reading.get("metrics/daily", accept).headers["applied-up-to"] == "2026-01-30T11:00:00.000Z"
    assert reading.get("metrics/top-products").headers["applied-up-to"] == "2026-01-31T12:00:00.000Z"
