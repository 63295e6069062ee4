"""Levels of stock as a collection: list, pages, filters and streams are what the table holds, for its tenant alone."""

import csv
import io
import json
from typing import Any

import psycopg
import pytest
from pipeline import Pipeline
from reader import Reader
from records import fill
from shop import problem

NDJSON, CSV = "application/x-ndjson", "text/csv"
LEVELS = 1_500
ODD = ("a,b", "a, b", "P-1,P-2", "x y/ü")
MOMENT = "2026-01-31T12:00:00"


@pytest.fixture(scope="module")
def reading(pipeline: Pipeline) -> Reader:
    """A tenant with more levels than products, some of ids that are hard to list; another has levels of the same."""
    reader = Reader(pipeline)
    with psycopg.connect(pipeline.settings.database_url) as db:
        for tenant in (reader.tenant, "somebody-elses-stock"):
            fill(db, tenant, products=50, stock=LEVELS)
            for n, product in enumerate(ODD):
                db.execute("INSERT INTO stock_levels VALUES (%s, %s, %s, 1, now(), 0)", [tenant, product, -n])
        db.execute(
            "UPDATE stock_levels SET updated_at = %s::timestamptz - (version - 100) * interval '1 us'"
            " WHERE tenant_id = %s AND version BETWEEN 1 AND 200",
            [f"{MOMENT}Z", reader.tenant],
        )
    return reader


def stored(reader: Reader, where: str = "true") -> list[dict[str, Any]]:
    """The levels that a condition holds for, as they are answered."""
    time = """to_char(updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""
    query = f"SELECT product_id, quantity, version, {time} FROM stock_levels WHERE tenant_id = %s AND {where}"
    rows = reader.pipeline.sql(query + " ORDER BY product_id", reader.tenant)
    return [dict(zip(("product_id", "quantity", "version", "updated_at"), row, strict=True)) for row in rows]


def exact(row: dict[str, Any]) -> dict[str, Any]:
    """With all six decimals of the second, of which zeros at the end are left out."""
    seconds, _, decimals = row["updated_at"].removesuffix("Z").partition(".")
    return row | {"updated_at": f"{seconds}.{decimals:0<6}Z"}


def test_pages_and_streams_are_the_table(reading: Reader) -> None:
    expected = stored(reading)
    assert len(expected) == LEVELS + len(ODD)
    pages = reading.pages("stock", limit=97)
    assert [exact(row) for row in pages] == expected
    assert [json.loads(line) for line in reading.get("stock", NDJSON).text.splitlines()] == pages
    table = list(csv.DictReader(io.StringIO(reading.get("stock", CSV).text, newline="")))
    assert table == [{name: str(value) for name, value in row.items()} for row in pages]
    assert reading.get("stock/P-1500").json() in pages  # of which there is no product
    problem(reading.get("products/P-1500"), 404, "not_found")


@pytest.mark.parametrize(
    ("query", "where"),
    [
        ("below=1", "quantity < 1"),
        ("below=-1", "quantity < -1"),
        ("below=-1000", "false"),
        ("product_id=P-7", "product_id = 'P-7'"),
        ("product_id=P-7&product_id=nothing&product_id=P-70", "product_id IN ('P-7', 'P-70')"),
        ("product_id=P-7&product_id=P-700&below=8", "product_id = 'P-7'"),
        ("product_id=a,b", "product_id = 'a,b'"),
        ("product_id=P-1,P-2&product_id=a,%20b", "product_id IN ('P-1,P-2', 'a, b')"),
        ("product_id=%27%20OR%20true%20--", "false"),
        (f"updated_since={MOMENT}Z", f"updated_at >= '{MOMENT}Z'"),
        (f"updated_since={MOMENT}.00001Z&below=50", f"updated_at >= '{MOMENT}.00001Z' AND quantity < 50"),
        ("updated_since=2199-01-01", "false"),
    ],
)
def test_levels_are_filtered(reading: Reader, query: str, where: str) -> None:
    expected = stored(reading, where)
    answer = reading.get(f"stock?{query}", NDJSON)
    assert [exact(json.loads(line)) for line in answer.text.splitlines()] == expected
    page = reading.page(f"stock?{query}&limit=2")
    assert [exact(row) for row in page["data"]] == expected[:2]
    assert (page["next_cursor"] is None) == (len(expected) <= 2)
    assert bool(expected) == (where != "false")


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("product_id=", "product_id"),
        ("product_id=P-1&product_id=", "product_id"),
        ("product_id=a%00b", "product_id"),
        ("below=1&below=2", "below"),
        ("below=1.0", "below"),
        ("below=", "below"),
        ("below=10000000000000000", "below"),
        ("updated_since=2026-01-31T12:00:00", "updated_since"),
        ("changed_since=2026-01-31", "changed_since"),
    ],
)
def test_a_bad_filter_is_named(reading: Reader, query: str, parameter: str) -> None:
    assert problem(reading.get(f"stock?{query}"), 400, "bad_parameter")["parameter"] == parameter


def test_a_cursor_is_good_for_the_products_that_it_was_made_for(reading: Reader) -> None:
    first = reading.page("stock?product_id=P-1&product_id=P-2&limit=1")
    rest = reading.page(f"stock?product_id=P-2&product_id=P-1&limit=1&cursor={first['next_cursor']}")
    assert [row["product_id"] for row in first["data"] + rest["data"]] == ["P-1", "P-2"]
    assert rest["next_cursor"] is None
    for other in ("product_id=P-1", "product_id=P-1,P-2", ""):
        problem(reading.get(f"stock?{other}&cursor={first['next_cursor']}"), 400, "bad_parameter")


def test_another_tenant_sees_none_of_them(reading: Reader) -> None:
    other = Reader(reading.pipeline)
    assert other.page("stock") == {"data": [], "next_cursor": None}
    assert other.page("stock?product_id=P-1")["data"] == []
    assert other.get("stock", NDJSON).text == ""
    problem(other.get("stock/P-1"), 404, "not_found")
