"""Exports: a file is what the reads say, as long as it is kept, and only its tenant's."""

import base64
import gzip
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from exporter import CSV, NDJSON, Exporter, files_of
from pipeline import Pipeline, eventually
from records import fill
from shop import problem
from typer.testing import CliRunner, Result

from deploy.cli import app
from schemas.errors import Misconfigured

ROWS = 1_500


@pytest.fixture(scope="module")
def shop(pipeline: Pipeline) -> Iterator[Exporter]:
    """A tenant with records of each kind, some of whose texts are formulas to a spreadsheet."""
    exporter = Exporter(pipeline)
    with psycopg.connect(pipeline.settings.database_url) as db:
        fill(db, exporter.tenant, customers=ROWS, products=50, orders=ROWS, stock=ROWS)
        db.execute(
            "UPDATE customers SET name = CASE customer_id WHEN 'C-1' THEN '=1+1' WHEN 'C-2' THEN E'@a\\nb' END"
            " WHERE tenant_id = %s AND customer_id IN ('C-1', 'C-2', 'C-3')",
            [exporter.tenant],
        )
    yield exporter
    assert pipeline.children["sinks"].restarts == 0


@pytest.mark.parametrize("entity", ["customers", "products", "orders", "stock"])
@pytest.mark.parametrize(("format_", "media_type"), [("ndjson", NDJSON), ("csv", CSV)])
def test_a_file_is_what_the_stream_of_the_same_records_is(
    shop: Exporter, entity: str, format_: str, media_type: str
) -> None:
    export_id = shop.begin(entity, format_, gzip=format_ == "csv")
    state = shop.ended(export_id)
    count = 50 if entity == "products" else ROWS
    assert (state["rows_done"], state["rows_total"], state["percent"], state["attempts"]) == (count, count, 100.0, 1)
    answer = shop.file(export_id)
    stored = answer.content
    assert (len(stored), hashlib.sha256(stored).hexdigest()) == (state["bytes"], state["sha256"])
    content = gzip.decompress(stored) if format_ == "csv" else stored
    assert content == shop.get(entity, media_type).content
    assert answer.headers["content-type"].partition(";")[0] == ("application/gzip" if format_ == "csv" else NDJSON)


def test_filters_are_those_of_the_lists(shop: Exporter) -> None:
    asked = {"status": ["paid", "shipped"], "from": "2026-01-02", "currency": "EUR"}
    export_id = shop.begin("orders", "ndjson", filters=asked)
    shop.ended(export_id)
    read = shop.get("orders", NDJSON, **(asked | {"status": "paid,shipped"})).content
    assert shop.file(export_id).content == read
    assert 0 < read.count(b"\n") < ROWS
    export_id = shop.begin("products", "ndjson", filters={"active": False})
    shop.ended(export_id)
    assert shop.file(export_id).content == shop.get("products", NDJSON, active="false").content != b""
    asked = {"product_id": ["P-7", "P-77", "P-7,P-8"], "below": 50, "updated_since": "2026-01-31"}
    export_id = shop.begin("stock", "ndjson", filters=asked)
    state = shop.ended(export_id)
    assert (state["rows_done"], state["rows_total"], state["filters"]["below"]) == (1, 1, ["50"])
    assert shop.file(export_id).content == shop.get("stock", NDJSON, **asked).content
    assert json.loads(shop.file(export_id).content)["product_id"] == "P-7"


def test_an_export_has_its_tenants_levels_only(shop: Exporter) -> None:
    other = Exporter(shop.pipeline)
    for format_, content in (("ndjson", b""), ("csv", b"product_id,quantity,version,updated_at\r\n")):
        export_id = other.begin("stock", format_)
        assert (other.ended(export_id)["rows_done"], other.file(export_id).content) == (0, content)


@pytest.mark.parametrize(
    ("asked", "code", "says"),
    [
        ({"entity": "invoices", "format": "csv"}, "bad_document", "products, orders, stock, got 'invoices'"),
        ({"entity": "orders", "format": "xlsx"}, "bad_document", "one of csv, ndjson, got 'xlsx'"),
        ({"entity": "orders", "format": "csv", "rows": 1}, "bad_document", "unknown field"),
        ({"entity": "customers", "format": "csv", "filters": {"sku": "x"}}, "bad_filter", "email, country"),
        ({"entity": "orders", "format": "csv", "filters": {"status": "lost"}}, "bad_filter", "pending, paid"),
        ({"entity": "orders", "format": "csv", "filters": {"sku": ["a", "b"]}}, "bad_filter", "once"),
        ({"entity": "orders", "format": "csv", "filters": {"currency": "eur"}}, "bad_filter", "three capital letters"),
        (
            {"entity": "orders", "format": "csv", "filters": {"from": "2026-02-01", "to": "2026-01-01"}},
            "bad_filter",
            "from is after to",
        ),
        ({"entity": "orders", "format": "csv", "filters": {"status": []}}, "bad_filter", "no value"),
        ({"entity": "orders", "format": "csv", "filters": {"status": ["paid"] * 101}}, "bad_filter", "100 at most"),
        ({"entity": "orders", "format": "csv", "filters": {"status": "paid," * 150}}, "bad_filter", "500 at most"),
        ({"entity": "orders", "format": "csv", "filters": {"sku": 1.5}}, "bad_document", "at /filters"),
        ({"entity": "stock", "format": "csv", "filters": {"below": 10**15 + 1}}, "bad_document", "at /filters"),
        ({"entity": "stock", "format": "csv", "filters": {"below": "few"}}, "bad_filter", "a whole number"),
        ({"entity": "stock", "format": "csv", "filters": {"below": True}}, "bad_filter", "a whole number"),
        (
            {"entity": "stock", "format": "csv", "filters": {"sku": "x"}},
            "bad_filter",
            "stock take product_id, below, updated_since",
        ),
    ],
)
def test_what_cannot_be_exported_is_refused_with_what_can(
    shop: Exporter, asked: dict[str, Any], code: str, says: str
) -> None:
    answer = shop.ask(**({"format_": asked.pop("format")} | asked))
    assert says in problem(answer, 400, code)["detail"]


def test_a_request_sent_again_is_one_export(shop: Exporter) -> None:
    export_id = shop.begin("products", "csv", key="nightly-1")
    shop.ended(export_id)
    again = shop.ask("products", "csv", key="nightly-1")
    assert (again.json()["export_id"], again.json()["state"]) == (export_id, "done")
    assert again.headers["idempotent-replayed"] == "true"
    problem(shop.ask("products", "ndjson", key="nightly-1"), 422, "idempotency_key_reused")
    assert export_id in [each["export_id"] for each in shop.page("exports")["data"]]


def test_a_download_goes_on_where_it_was(shop: Exporter) -> None:
    export_id = shop.begin("orders", "csv")
    digest = bytes.fromhex(shop.ended(export_id)["sha256"])
    whole = shop.file(export_id)
    size, etag = len(whole.content), whole.headers["etag"]
    assert whole.headers["repr-digest"] == f"sha-256=:{base64.b64encode(digest).decode()}:"
    assert whole.headers["content-disposition"].startswith('attachment; filename="orders-20')
    rest = shop.file(export_id, Range="bytes=1000-", If_Range=etag)
    assert (rest.status_code, rest.content) == (206, whole.content[1000:])
    assert rest.headers["content-range"] == f"bytes 1000-{size - 1}/{size}"
    assert rest.headers["repr-digest"] == whole.headers["repr-digest"]
    last = shop.file(export_id, Range="bytes=-7")
    assert (last.status_code, last.content) == (206, whole.content[-7:])
    two = shop.file(export_id, Range="bytes=0-1,10-11")
    assert two.headers["content-type"].startswith("multipart/byteranges")
    other = shop.file(export_id, Range="bytes=1000-", If_Range='"of-another-file"')
    assert (other.status_code, other.content) == (200, whole.content)
    for ignored in ("rows=1-2", "bytes=9-3", "bytes=x"):
        assert shop.file(export_id, Range=ignored).content == whole.content, ignored
    beyond = shop.file(export_id, Range=f"bytes={size}-")
    problem(beyond, 416, "range_not_satisfiable")
    assert beyond.headers["content-range"] == f"bytes */{size}"
    some = shop.file(export_id, Range=f"bytes={size}-,0-1")
    assert (some.status_code, some.content) == (206, whole.content[:2])
    assert shop.file(export_id, If_None_Match=f'"x", {etag}').status_code == 304
    changed, before, never = whole.headers["last-modified"], "Thu, 01 Jan 2026 00:00:00 GMT", "tomorrow"
    for when, known, other in ((changed, 304, 200), (before, 200, 412), (never, 200, 200)):
        assert shop.file(export_id, If_Modified_Since=when).status_code == known, when
        assert shop.file(export_id, If_Unmodified_Since=when).status_code == other, when
    assert shop.file(export_id, If_Modified_Since=changed, If_None_Match='"x"').status_code == 200
    url = f"/api/v1/tenants/{shop.tenant}/exports/{export_id}/file"
    head = shop.pipeline.http.head(url, headers={"X-API-Key": shop.key, "Range": "bytes=0-9"})
    assert (head.status_code, head.headers["content-length"]) == (200, str(size))


def test_an_export_is_nothing_to_another_tenant(shop: Exporter) -> None:
    export_id = shop.begin("products", "csv")
    shop.ended(export_id)
    stranger = Exporter(shop.pipeline)
    problem(stranger.get(f"exports/{export_id}"), 404, "unknown_export")
    problem(stranger.file(export_id), 404, "unknown_export")
    assert stranger.page("exports") == {"data": []}
    empty = stranger.begin("products", "ndjson")
    assert stranger.ended(empty)["percent"] == 100.0
    assert stranger.file(empty).content == b""


def test_a_file_is_removed_when_its_time_is_over(shop: Exporter) -> None:
    export_id = shop.begin("products", "csv")
    shop.ended(export_id)
    [file] = files_of(shop, export_id)
    with psycopg.connect(shop.pipeline.settings.database_url) as db:
        db.execute("UPDATE exports SET expires_at = now() WHERE export_id = %s", [export_id])
    eventually(lambda: shop.state(export_id)["state"] == "expired")
    eventually(lambda: not file.exists())
    problem(shop.file(export_id), 410, "export_expired")


def test_a_file_that_somebody_removed_is_gone(shop: Exporter, tmp_path: Path) -> None:
    export_id = shop.begin("products", "csv")
    etag = f'"{shop.ended(export_id)["sha256"]}"'
    assert shop.file(export_id, If_Match=f'"x", {etag}').status_code == 200
    assert shop.file(export_id, If_Match="*").status_code == 200
    problem(shop.file(export_id, If_Match=f"W/{etag}"), 412, "other_file")
    [file] = files_of(shop, export_id)
    file.write_bytes(b"cut off")
    problem(shop.file(export_id), 410, "file_gone")
    file.unlink()
    problem(shop.file(export_id), 410, "file_gone")
    assert shop.state(export_id)["state"] == "done"


def test_a_file_that_nobody_needs_is_removed(shop: Exporter) -> None:
    export_id = shop.begin("products", "csv")
    shop.ended(export_id)
    [file] = files_of(shop, export_id)
    assert shop.cancel(export_id).json()["state"] == "expired"
    eventually(lambda: not file.exists())
    problem(shop.file(export_id), 410, "export_expired")
    assert shop.cancel(export_id).json()["state"] == "expired"
    problem(Exporter(shop.pipeline).cancel(export_id), 404, "unknown_export")


# On the command line


def command(exporter: Exporter, *arguments: str) -> Result:
    """A command within this process: starting Python takes longer than all that it does here."""
    whose = ("--tenant-id", exporter.tenant, "--api-key", exporter.key)
    return CliRunner().invoke(app, [*arguments, *whose, "--gateway-url", str(exporter.pipeline.http.base_url)])


def test_the_command_goes_on_with_what_it_has(shop: Exporter, tmp_path: Path) -> None:
    file, part, note = (tmp_path / f"o.csv.gz{suffix}" for suffix in ("", ".part", ".export"))
    paid = ("export", "orders", "--gzip", "-o", str(file), "--filter", "status=paid", "--filter", "status=shipped")
    asked = {"entity": "orders", "format": "csv", "gzip": True, "filters": {"status": ["paid", "shipped"]}}
    url = f"{str(shop.pipeline.http.base_url).rstrip('/')}/api/v1/tenants/{shop.tenant}"
    export_id = shop.begin("orders", "csv", gzip=True, filters=asked["filters"], key="ended-in-the-middle")
    shop.ended(export_id)
    whole = shop.file(export_id).content
    assert gzip.decompress(whole) == shop.get("orders", CSV, status="paid,shipped").content

    # One that was ended in the middle of a download goes on; what is no part of the file is found out by its hash.
    for begun in (whole[:1_000], b"x" * 1_000):
        note.write_text(json.dumps({"url": url, "document": asked, "key": "ended-in-the-middle"}))
        part.write_bytes(begun)
        done = command(shop, *paid, "--json")
        assert (done.exit_code, json.loads(done.stdout)["export_id"]) == (0, export_id), done.output
        assert (file.read_bytes(), part.exists(), note.exists()) == (whole, False, False)

    assert isinstance(command(shop, "export", "orders", "--filter", "paid").exception, Misconfigured)
    refused = command(shop, "export", "invoices", "-o", str(file)).exception
    assert "one of customers, products, orders, stock" in str(refused)
    assert not note.exists()
    os.mkfifo(pipe := tmp_path / "pipe")
    for wrong in (str(pipe), str(tmp_path), "", str(tmp_path / "no" / "x.csv")):
        assert isinstance(command(shop, "export", "orders", "-o", wrong).exception, Misconfigured), wrong
    assert pipe.is_fifo()
    assert "Fatal Python error" not in shop.pipeline.log("sinks")


def test_the_command_exports_levels_of_stock(shop: Exporter, tmp_path: Path) -> None:
    few = ("--filter", "below=900", "--filter", "product_id=P-8", "--filter", "product_id=P-900")
    done = command(shop, "export", "stock", "-o", str(tmp_path / "few.csv"), *few)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "few.csv").read_bytes() == shop.get("stock", CSV, product_id="P-8").content


def test_what_was_exported_can_be_ingested(pipeline: Pipeline, tmp_path: Path) -> None:
    shop, formula = Exporter(pipeline), '=HYPERLINK("http://x")'
    shop.send("customers", {"customer_id": "C-1", "name": formula, "phone": "+49 30 1", "vip": [1, {"a": None}]})
    shop.send("products", {"product_id": "P-1", "name": "-x", "price": "0.10", "active": False, "colour": "@red\n;"})
    item = {"product_id": "P-1", "quantity": 2, "unit_price": "5.00"}
    order = {"external_order_id": "A-1", "total_amount": "10.00", "currency": "EUR", "order_status": "paid"}
    order |= {"order_date": "2026-01-31T12:00:00.5Z", "customer_id": "C-2", "customer_name": formula}
    shop.send("orders", order | {"items": [item], "gift": {"text": 'a "b"', "n": 12345678901234567890}})
    pipeline.drained()
    for format_, media_type in (("csv", CSV), ("ndjson", NDJSON)):
        twin = Exporter(pipeline)
        for entity in ("customers", "products", "orders"):
            file = tmp_path / f"{entity}.{format_}"
            done = command(shop, "export", entity, "--format", format_, "-o", str(file))
            assert done.exit_code == 0, done.output
            assert command(twin, "ingest", str(file), "--entity", entity).exit_code == 0
        pipeline.drained()
        for entity in ("customers", "products", "orders"):
            assert twin.get(entity, media_type).content == shop.get(entity, media_type).content, (entity, format_)
