"""Reads: rows come back as they were sent, page by page or as a stream, filtered, with how fresh they are."""

import csv
import io
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import psycopg
import pytest
from pipeline import Pipeline, eventually
from reader import Reader
from records import fill
from shop import problem

from schemas import topics

NDJSON, CSV = "application/x-ndjson", "text/csv"
JSON_COLUMNS = {"items", "attributes", "raw_payload", "unresolved", "active"}


@pytest.fixture(scope="module")
def reading(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """A tenant with 5,000 orders, many of one minute, of 5,000 customers and 1,000 products, not all of them known."""
    with Pipeline(tmp_path_factory.mktemp("reads")) as pipeline:
        pipeline.start("gateway")
        reader = Reader(pipeline)
        with psycopg.connect(pipeline.settings.database_url) as db:
            fill(db, reader.tenant, customers=4_500, products=990, orders=5_000)
            fill(db, "somebody-else", customers=5_000, products=1_000, orders=5_000)
        yield reader


# Rows

CUSTOMER = {
    "customer_id": "C/1 ä%&?",
    "email": 'quoted "mail", with comma',
    "name": "Zoë\nsecond line\r\nthird \u0001\u0002\\",
    "phone": "",
    "country": None,
    "attributes": {"nested": [1, 2.5, None, {"a": 'b"c'}], "big": 12345678901234567890},
    "updated_at": "2026-01-31T13:00:00.123456+01:00",
}
PRODUCT = {"product_id": "P-1", "name": "Plain", "price": 3, "active": False, "colour": "red"}
ORDER = {
    "external_order_id": "A-1",
    "customer_id": "C/1 ä%&?",
    "customer_name": "Zoë",
    "total_amount": "12.5",
    "currency": "EUR",
    "order_status": "paid",
    "order_date": "2026-01-31T12:00:00Z",
    "items": [
        {"product_id": "P-2", "quantity": 2, "unit_price": 1.5},
        {"product_id": "P-1", "quantity": 1, "unit_price": "9.50"},
        {"product_id": "P-2", "quantity": 1, "unit_price": 0},
    ],
    "gift": True,
}


@pytest.fixture(scope="module")
def sent(pipeline: Pipeline) -> Reader:
    """A tenant that sent one record of each kind through the whole pipeline."""
    reader = Reader(pipeline)
    reader.send("orders", ORDER)
    pipeline.drained()
    return reader


def test_a_late_reference_resolves_by_itself(sent: Reader) -> None:
    assert sent.get("orders/A-1").json()["unresolved"] == {"customer": True, "products": ["P-1", "P-2"]}
    sent.send("products", PRODUCT)
    eventually(lambda: sent.get("orders/A-1").json()["unresolved"]["products"] == ["P-2"])
    assert [row["external_order_id"] for row in sent.pages("orders", unresolved="true")] == ["A-1"]
    sent.send("customers", CUSTOMER)
    eventually(lambda: sent.get("orders/A-1").json()["unresolved"]["customer"] is False)
    sent.send("products", {"product_id": "P-2", "name": "Second", "price": "0.10", "sku": "S 2", "category": "x"})
    eventually(lambda: sent.get("orders/A-1").json()["unresolved"] is None)
    assert sent.pages("orders", unresolved="true") == []


def test_rows_come_back_as_they_were_sent(sent: Reader) -> None:
    customer = CUSTOMER | {"updated_at": "2026-01-31T12:00:00.123456Z"}
    assert sent.get(f"customers/{quote('C/1 ä%&?', safe='')}").json() == customer
    product = {"product_id": "P-1", "sku": "P-1", "name": "Plain", "price": "3.00", "currency": "EUR"} | {
        "category": None,
        "active": False,
        "attributes": {"colour": "red"},
        "updated_at": None,
    }
    assert sent.get("products/P-1").json() == product
    order = {name: value for name, value in ORDER.items() if name != "gift"} | {
        "customer_email": None,
        "total_amount": "12.50",
        "items": [
            {"product_id": "P-2", "quantity": 2, "unit_price": "1.50"},
            {"product_id": "P-1", "quantity": 1, "unit_price": "9.50"},
            {"product_id": "P-2", "quantity": 1, "unit_price": "0.00"},
        ],
        "raw_payload": {"gift": True},
        "updated_at": None,
        "unresolved": None,
    }
    assert sent.get("orders/A-1").json() == order
    assert sent.page("orders") == {"data": [order], "next_cursor": None}
    assert [json.loads(line) for line in sent.get("customers", NDJSON).text.split("\n")[:-1]] == [customer]
    text = sent.get("customers", CSV).text
    assert text.startswith("customer_id,email,name,phone,country,attributes,updated_at\r\n")
    assert text.endswith("\r\n")
    assert '\n"C/1' not in text  # quoted where it must be only
    [row] = csv.DictReader(io.StringIO(text, newline=""))
    assert json.loads(row.pop("attributes")) == CUSTOMER["attributes"]
    assert row == {name: value or "" for name, value in customer.items() if name != "attributes"}
    [row] = csv.DictReader(io.StringIO(sent.get("orders", CSV).text, newline=""))
    assert json.loads(row["items"]) == order["items"]
    assert (row["total_amount"], row["order_date"]) == ("12.50", "2026-01-31T12:00:00Z")
    assert {row["active"] for row in csv.DictReader(io.StringIO(sent.get("products", CSV).text))} == {"true", "false"}


def test_an_id_is_found_however_odd(reading: Reader) -> None:
    odd = ["a/b", "a/", "/", "..", "a b+c", "100%", "%2F", "ü/?#", "'; DROP TABLE orders --", "\\x01"]
    with psycopg.connect(reading.pipeline.settings.database_url) as db:
        for one in odd:
            db.execute(
                "INSERT INTO customers (tenant_id, customer_id, id, version_at, version_offset, version_row)"
                " VALUES ('odd', %s, gen_random_uuid(), now(), 1, 1)".replace("'odd'", f"'{reading.tenant}'").encode(),
                [one],
            )
    for one in odd:
        if one != "..":  # clients take such a path apart themselves
            answer = reading.get(f"customers/{quote(one, safe='')}")
            assert answer.json().get("customer_id") == one, answer.text
    assert reading.get("customers/C-1/").json()["customer_id"] == "C-1"
    for missing in ("C-1x", "%00", "C-1/x", quote("x" * 5000)):
        problem(reading.get(f"customers/{missing}"), 404, "not_found")
    reading.pipeline.sql("DELETE FROM customers WHERE version_offset = 1 AND customer_id <> 'C-1' RETURNING id")


# Pages and streams


def test_pages_visit_each_row_once_and_the_newest_first(reading: Reader) -> None:
    rows = reading.pages("orders", limit=137)
    assert [row["external_order_id"] for row in rows] == reading.ids()
    assert len({row["order_date"] for row in rows}) < 2_000 < len(rows) == 5_000  # ties, over the ends of pages too
    for entity, id_ in (("products", "product_id"), ("customers", "customer_id")):
        stored = reading.pipeline.sql(f"SELECT {id_} FROM {entity} WHERE tenant_id = %s ORDER BY 1", reading.tenant)
        assert [(row[id_],) for row in reading.pages(entity, limit=1000)] == stored


def test_streams_say_what_pages_say(reading: Reader) -> None:
    for entity in ("orders", "products", "customers"):
        rows = reading.pages(entity, limit=1000)
        assert [json.loads(line) for line in reading.get(entity, NDJSON).text.splitlines()] == rows
        table = csv.DictReader(io.StringIO(reading.get(entity, CSV).text, newline=""))
        assert [{name: _value(name, cell) for name, cell in line.items()} for line in table] == rows
    assert len(reading.get("orders", NDJSON, limit=7).text.splitlines()) == 7


def _value(name: str, cell: str) -> Any:
    """What JSON has in the place of this cell."""
    return json.loads(cell) if cell and name in JSON_COLUMNS else cell or None


@pytest.mark.parametrize(
    ("query", "where"),
    [
        ("status=paid", "order_status = 'paid'"),
        ("status=paid,pending&status=refunded", "order_status IN ('paid', 'pending', 'refunded')"),
        ("from=2026-01-03", "order_date >= '2026-01-03Z'"),
        ("from=2026-01-03T12:30:00%2B01:00&to=2026-01-03T11:40:00Z", "order_date >= '2026-01-03 11:30Z'"
         " AND order_date < '2026-01-03 11:40Z'"),
        ("from=2026-01-03T12:30:00+01:00", "order_date >= '2026-01-03 11:30Z'"),
        ("product_id=P-7", "EXISTS (SELECT FROM order_items i WHERE i.tenant_id = o.tenant_id AND"
         " i.external_order_id = o.external_order_id AND product_id = 'P-7')"),
        ("sku=SKU-7&currency=EUR", "currency = 'EUR' AND EXISTS (SELECT FROM order_items i WHERE i.tenant_id ="
         " o.tenant_id AND i.external_order_id = o.external_order_id AND product_id = 'P-7')"),
        ("product_id=P-7&sku=SKU-24", "external_order_id IN (SELECT external_order_id FROM order_items i WHERE"
         " i.tenant_id = o.tenant_id AND product_id IN ('P-7', 'P-24') GROUP BY 1 HAVING count(*) = 2)"),
        ("product_id=P-7&from=2026-01-03", "order_date >= '2026-01-03Z' AND EXISTS (SELECT FROM order_items i WHERE"
         " i.tenant_id = o.tenant_id AND i.external_order_id = o.external_order_id AND product_id = 'P-7')"),
        ("customer_id=C-77&product_id=P-357", "external_order_id = 'A-76'"),
        ("customer_id=C-77&product_id=P-7", "false"),
        ("sku=none", "false"),
        ("customer_id=C-77", "customer_id = 'C-77'"),
        ("unresolved=true&status=paid", "order_status = 'paid' AND (substr(customer_id, 3)::int > 4500 OR EXISTS"
         " (SELECT FROM order_items i WHERE i.tenant_id = o.tenant_id AND i.external_order_id = o.external_order_id"
         " AND substr(product_id, 3)::int > 990))"),
        ("customer_id=%27%20OR%20true%20--", "false"),
    ],
    ids=lambda text: text[:30],
)  # fmt: skip
def test_orders_are_filtered(reading: Reader, query: str, where: str) -> None:
    expected = reading.ids(where)
    answer = reading.get(f"orders?{query}", NDJSON)
    assert [json.loads(line)["external_order_id"] for line in answer.text.splitlines()] == expected
    page = reading.get(f"orders?{query}&limit=50").json()
    assert [row["external_order_id"] for row in page["data"]] == expected[:50]
    assert (page["next_cursor"] is None) == (len(expected) <= 50)
    assert expected or where == "false"


def test_an_order_that_moves_in_time_moves_among_those_of_its_product(sent: Reader) -> None:
    twice = [{"product_id": "P-moved", "quantity": 1, "unit_price": 1}] * 2
    row = {"total_amount": 2, "currency": "EUR", "order_status": "paid", "items": twice}

    def ids() -> list[str]:
        return [order["external_order_id"] for order in sent.pages("orders", product_id="P-moved", limit=1)]

    for id_, day in (("M-1", 1), ("M-2", 2), ("M-3", 3)):
        sent.send("orders", row | {"external_order_id": id_, "order_date": f"2026-02-{day:02}T12:00:00Z"})
    eventually(lambda: ids() == ["M-3", "M-2", "M-1"])
    sent.send("orders", row | {"external_order_id": "M-1", "order_date": "2026-03-01T12:00:00Z"})
    eventually(lambda: ids() == ["M-1", "M-3", "M-2"])
    sent.send("orders", row | {"external_order_id": "M-3", "order_date": "2026-04-01T12:00:00Z", "items": []})
    eventually(lambda: ids() == ["M-1", "M-2"])


def test_products_and_customers_are_filtered(reading: Reader) -> None:
    assert [row["product_id"] for row in reading.pages("products", sku="SKU-5")] == ["P-5"]
    assert {row["active"] for row in reading.pages("products", active="false")} == {False}
    assert {row["category"] for row in reading.pages("products", category="category 3", active="true")} == {
        "category 3"
    }
    assert [row["customer_id"] for row in reading.pages("customers", email="c9@example.com")] == ["C-9"]
    assert len(reading.pages("customers", country="FR", limit=1000)) == 1500


@pytest.mark.parametrize(
    ("path", "parameter"),
    [
        ("orders?colour=red", "colour"),
        ("orders?status=lost", "status"),
        ("orders?status=", "status"),
        ("orders?from=yesterday", "from"),
        ("orders?from=2026-01-01T00:00:00", "from"),
        ("orders?to=2026-02-30", "to"),
        ("orders?to=2026-01-01T25:00:00Z", "to"),
        ("orders?customer_id=a%00b", "customer_id"),
        ("orders?customer_id=", "customer_id"),
        ("orders?customer_id=a&customer_id=b", "customer_id"),
        ("orders?unresolved=maybe", "unresolved"),
        ("orders?limit=0", "limit"),
        ("orders?limit=1001", "limit"),
        ("orders?limit=ten", "limit"),
        ("orders?limit=1&limit=2", "limit"),
        ("orders?cursor=nonsense", "cursor"),
        ("orders?cursor=ä", "cursor"),
        ("orders?cursor=W10", "cursor"),
        ("products?active=yes", "active"),
        ("products?status=paid", "status"),
        ("customers?sku=1", "sku"),
        ("customers/C-1?email=x", "email"),
    ],
)
def test_a_bad_parameter_is_named(reading: Reader, path: str, parameter: str) -> None:
    said = problem(reading.get(path), 400, "bad_parameter")
    assert said["parameter"] == parameter
    assert parameter in said["detail"]


def test_a_cursor_is_good_for_its_own_filters_only(reading: Reader) -> None:
    cursor = reading.page("orders", status="paid", limit=2)["next_cursor"]
    assert reading.page("orders", status="paid", limit=3, cursor=cursor)["data"]
    for path in ("orders", "orders?status=pending", "customers"):
        said = problem(
            reading.get(path, **dict(httpx.QueryParams(path.partition("?")[2])), cursor=cursor), 400, "bad_parameter"
        )
        assert said["parameter"] == "cursor"
    other = Reader(reading.pipeline)
    problem(other.get("orders", status="paid", cursor=cursor), 400, "bad_parameter")


def test_other_media_types_are_406(reading: Reader) -> None:
    problem(reading.get("orders", "image/png"), 406, "not_acceptable")
    problem(reading.get("orders/A-1", CSV), 406, "not_acceptable")
    assert reading.get("orders", "text/csv;q=0.5, application/json;q=0.4", limit=1).headers["content-type"] == (
        "text/csv; charset=utf-8"
    )


def test_each_answer_says_how_fresh_it_is(reading: Reader) -> None:
    settings, paths = reading.pipeline.settings, ("orders", "customers/C-1", "products?limit=1")
    media_types = {"orders": ("*/*", NDJSON, CSV)}
    asked = [(path, accept) for path in paths for accept in media_types.get(path, ("*/*",))]
    assert not any("applied-up-to" in reading.get(path, accept).headers for path, accept in asked)
    partition = topics.partition_of(topics.partition_key(reading.tenant), settings.partitions)
    reading.pipeline.sql(
        "INSERT INTO sink_offsets VALUES (%s, %s, 'x', 1, '2026-01-31 12:00:00.123456Z'), (%s, %s, 'x', 1, now())"
        " RETURNING topic",
        settings.named(topics.INGESTION_UNIQUE), partition, settings.named(topics.INGESTION_UNIQUE), partition + 1,
    )  # fmt: skip
    assert {reading.get(path, accept).headers["applied-up-to"] for path, accept in asked} == {
        "2026-01-31T12:00:00.123Z"
    }
    reading.pipeline.sql("UPDATE sink_offsets SET applied_up_to = NULL RETURNING topic")
    assert not any("applied-up-to" in reading.get(path, accept).headers for path, accept in asked)


def test_head_answers_without_a_body(reading: Reader) -> None:
    for accept in ("application/json", NDJSON):
        answer = reading.pipeline.http.head(
            f"/api/v1/tenants/{reading.tenant}/orders", headers={"X-API-Key": reading.key, "Accept": accept}
        )
        assert (answer.status_code, answer.headers["content-type"].partition(";")[0], answer.content) == (
            200,
            accept,
            b"",
        )
