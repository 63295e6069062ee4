"""Stock over HTTP: movements in, levels and their history out, through real processes."""

import asyncio
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pipeline import Pipeline, eventually
from shop import problem

from producers import Producer, tenants
from producers.tenants import Limits, Tenant

PRODUCT = "P-1"
NOTHING_WRONG = {"rejected": 0, "errors": [], "errors_omitted": 0}


class Warehouse:
    """A tenant of the shared pipeline with stock."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.tenant, self.key = pipeline.tenant()

    def url(self, path: str) -> str:
        return f"/api/v1/tenants/{self.tenant}/{path}"

    def post(self, *movements: Any, query: str = "", **headers: str) -> httpx.Response:
        """Movements as lines; text is sent as it is."""
        body = "\n".join(each if isinstance(each, str) else json.dumps(each) for each in movements)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        url = self.url("stock-events") + query
        return self.pipeline.http.post(url, content=body, headers={"X-API-Key": self.key, **named})

    def takes(self, *movements: Any, query: str = "", **headers: str) -> str:
        """The event id of movements that are all right."""
        answer = self.post(*movements, query=query, **headers)
        assert answer.status_code == 202, answer.text
        [event_id] = answer.json()["event_ids"]
        assert answer.json() == {"event_ids": [event_id], "accepted": len(movements), **NOTHING_WRONG}
        return str(event_id)

    def get(self, path: str, accept: str = "*/*", **query: Any) -> httpx.Response:
        headers = {"X-API-Key": self.key, "Accept": accept}
        return self.pipeline.http.get(self.url(path), params=query or None, headers=headers)

    def level(self, product: str = PRODUCT) -> tuple[int, int] | None:
        """Quantity and version as the API says them; `product` as it stands in the path."""
        answer = self.get(f"stock/{product}")
        assert answer.status_code in (200, 404), answer.text
        return (answer.json()["quantity"], answer.json()["version"]) if answer.status_code == 200 else None

    def history(self, product: str = PRODUCT, **query: Any) -> list[dict[str, Any]]:
        answer = self.get(f"stock/{product}/history", **query)
        assert answer.status_code == 200, answer.text
        return list(answer.json()["data"])

    def event(self, event_id: str) -> dict[str, Any]:
        """What became of an event, once that is known."""
        return dict(eventually(lambda: (said := self.get(f"events/{event_id}").json())["status"] != "pending" and said))


def moved(kind: str, quantity: int, product: str = PRODUCT, **more: Any) -> dict[str, Any]:
    return {"product_id": product, "kind": kind, "quantity": quantity, **more}


@pytest.fixture(scope="module")
def house(pipeline: Pipeline) -> Iterator[Warehouse]:
    """At the end every movement is accounted for, and no process had to restart."""
    house = Warehouse(pipeline)
    yield house
    pipeline.drained()
    assert [child.restarts for child in pipeline.children.values()] == [0] * len(pipeline.children)


@pytest.fixture
def fresh(house: Warehouse) -> Warehouse:
    """A tenant for one test."""
    return Warehouse(house.pipeline)


def test_movements_become_a_level_and_say_why_it_is_what_it_is(fresh: Warehouse) -> None:
    at = "2026-01-31T12:00:00Z"
    first = fresh.takes(moved("received", 10, event_id="d-1", occurred_at=at), moved("sold", 3), moved("set", 7, "Q"))
    second = fresh.takes(moved("sold", 9), moved("adjusted", -4, expected_quantity=7))
    eventually(lambda: fresh.level() == (3, 3))
    eventually(lambda: len(fresh.history()) == 4)
    newest, refused, sale, delivery = fresh.history()
    assert (newest["quantity"], newest["version"], newest["outcome"]) == (3, 3, "applied")
    assert newest["movement"] == {
        "kind": "adjusted", "quantity": -4, "event_id": None, "occurred_at": None, "expected_quantity": 7,
    }  # fmt: skip
    assert (refused["outcome"], refused["code"], refused["quantity"]) == ("rejected", "insufficient_stock", 7)
    assert (newest["event_id"], newest["line"], newest["row"]) == (second, 2, 1)
    assert (sale["event_id"], sale["quantity"]) == (first, 7)
    assert delivery["movement"]["occurred_at"] == at
    assert delivery["movement"]["event_id"] == "d-1"
    assert fresh.history(outcome="rejected") == [refused]
    said = fresh.event(second)
    assert (said["type"], said["status"]) == ("tillstream.stock-movements.v1", "applied")
    assert (said["rows"], said["applied"], said["rejected"]) == (2, 1, 1)
    [error] = said["errors"]
    assert (error["line"], error["code"], error["pointer"]) == (1, "insufficient_stock", "/quantity")
    assert json.loads(error["row"]) == moved("sold", 9)


def test_what_is_wrong_with_a_line_is_named_and_the_others_count(fresh: Warehouse) -> None:
    answer = fresh.post(
        moved("received", 5), moved("sold", -1), moved("stolen", 1), {"product_id": "", "quantity": "1"},
        moved("set", 1, expectd_quantity=5), "{", moved("adjusted", -1), moved("set", 10**15 + 1),
        moved("set", 1, occurred_at="2026-01-31T12:00:00"), moved("set", 1, "a\x00b"), "[]",
        moved("set", 1, " a"), moved("set", 1, event_id="a "),
    )  # fmt: skip
    assert answer.status_code == 202
    said = answer.json()
    assert (said["accepted"], said["rejected"]) == (2, 11)
    assert [(e["line"], e["pointer"], e["code"]) for e in said["errors"]] == [
        (2, "/quantity", "negative_quantity"), (3, "/kind", "invalid_value"), (4, "/product_id", "invalid_value"),
        (4, "/kind", "missing_field"), (4, "/quantity", "wrong_type"), (5, "/expectd_quantity", "unknown_field"),
        (6, "", "malformed_json"), (8, "/quantity", "invalid_value"), (9, "/occurred_at", "invalid_value"),
        (10, "/product_id", "nul_character"), (11, "", "not_an_object"), (12, "/product_id", "invalid_value"),
        (13, "/event_id", "invalid_value"),
    ]  # fmt: skip
    eventually(lambda: fresh.level() == (4, 2))


def test_all_or_nothing_and_nothing_at_all(fresh: Warehouse) -> None:
    mixed = (moved("received", 5), moved("sold", -1))
    assert problem(fresh.post(*mixed, query="?on_error=reject"), 422, "rows_rejected")["errors"][0]["line"] == 2
    problem(fresh.post(moved("sold", -1)), 422, "rows_rejected")
    dry = fresh.post(*mixed, query="?validate_only=true")
    assert (dry.status_code, dry.json()["accepted"], dry.json()["validated_only"]) == (200, 1, True)
    problem(fresh.post(moved("sold", 1), query="?validate_onyl=true"), 400, "bad_parameter")
    problem(fresh.post(""), 400, "empty_body")
    fresh.takes(moved("set", 1, "other"))
    eventually(lambda: fresh.level("other") == (1, 1))
    assert fresh.level() is None


def test_a_body_is_one_message_or_too_large(fresh: Warehouse) -> None:
    line = json.dumps(moved("received", 1))
    event_id = fresh.takes(*[line] * 5_000)
    problem(fresh.post(*[line] * 5_001), 413, "too_many_rows")
    long = json.dumps(moved("received", 1, "€" * 100, event_id="€" * 100))
    problem(fresh.post(*[long] * 1_500), 413, "too_many_rows")
    assert (fresh.event(event_id)["rows"], fresh.level()) == (5_000, (5_000, 5_000))


def test_compressed_lines_are_read(fresh: Warehouse) -> None:
    body = gzip.compress(json.dumps(moved("received", 2)).encode())
    headers = {"X-API-Key": fresh.key, "Content-Encoding": "gzip"}
    answer = fresh.pipeline.http.post(fresh.url("stock-events/"), content=body, headers=headers)
    assert answer.status_code == 202
    eventually(lambda: fresh.level() == (2, 1))


def test_a_request_under_its_key_counts_once_and_is_answered_as_the_first_time(fresh: Warehouse) -> None:
    body = (moved("received", 5), moved("sold", -1), moved("received", 1))
    first = fresh.post(*body, Idempotency_Key="delivery-17")
    assert (first.status_code, first.json()["accepted"]) == (202, 2)
    fresh.event(first.json()["event_ids"][0])
    again = fresh.post(*body, Idempotency_Key='"delivery-17"')
    assert (again.json(), again.headers["idempotent-replayed"]) == (first.json(), "true")
    problem(fresh.post(moved("received", 9), Idempotency_Key="delivery-17"), 422, "idempotency_key_reused")
    assert fresh.level() == (6, 2)


def test_a_resend_that_overtakes_the_ledger_is_told_apart_by_streams(fresh: Warehouse) -> None:
    same = [fresh.takes(moved("received", 5), Idempotency_Key="k") for _ in range(3)]
    assert len(set(same)) == 1
    fresh.pipeline.drained()
    said = fresh.event(same[0])
    assert [said["status"], *(line["status"] for line in said["repeats"])][:2] in (
        ["applied"],
        ["applied", "duplicate"],
    )
    assert fresh.level() == (5, 1)


def test_single_events_are_limited_a_tenant_and_a_product(fresh: Warehouse) -> None:
    def limited(known: Tenant | None) -> Tenant:
        assert known is not None
        return Tenant(known.tenant_id, known.name, known.currency, known.keys, Limits(5, 2))

    tenants.change(fresh.pipeline.settings, fresh.tenant, limited)
    json_ = {"Content_Type": "application/json"}
    eventually(
        lambda: fresh.post(moved("set", 1, "R"), **json_).headers["ratelimit-policy"].startswith('"tenant";q=5;')
    )
    answers = [fresh.post(moved("received", 1), **json_) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [202, 202, 429]
    assert problem(answers[2], 429, "rate_limited")["violated-policies"] == ["product"]
    others = [fresh.post(moved("received", 1, f"S-{n}"), **json_) for n in range(3)]
    assert problem(others[-1], 429, "rate_limited")["violated-policies"] == ["tenant"]
    fresh.takes(moved("received", 1))
    eventually(lambda: fresh.level() == (3, 3))


def test_a_tenant_that_oversells_may_fall_below_zero_from_then_on(fresh: Warehouse) -> None:
    admin = {"Authorization": f"Bearer {fresh.pipeline.settings.admin_token}"}
    url = f"/api/v1/admin/tenants/{fresh.tenant}"
    said = []
    for oversell in (None, True, False):
        fresh.pipeline.http.patch(url, json={"policies": {"oversell": oversell}}, headers=admin).raise_for_status()
        said.append(fresh.takes(moved("sold", 2)))
    assert [fresh.event(event_id)["applied"] for event_id in said] == [0, 1, 0]
    eventually(lambda: fresh.level() == (-2, 1))
    policies = "SELECT rows FROM ledger WHERE tenant_id = %s AND type = 'tillstream.stock-policy.v1'"
    assert fresh.pipeline.sql(policies, fresh.tenant) == [(0,), (0,)]
    assert [level["product_id"] for level in fresh.get("stock", below=0).json()["data"]] == [PRODUCT]


def test_levels_are_listed_filtered_and_streamed(fresh: Warehouse) -> None:
    fresh.takes(*[moved("set", n, f"P-{n:03d}") for n in range(250)])
    eventually(lambda: fresh.level("P-249") is not None)
    rows, cursor = [], {}
    while True:
        page = fresh.get("stock", limit=100, **cursor).json()
        rows += page["data"]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert [(row["product_id"], row["quantity"]) for row in rows] == [(f"P-{n:03d}", n) for n in range(250)]
    assert [row["quantity"] for row in fresh.get("stock", below=3).json()["data"]] == [0, 1, 2]
    assert [row["quantity"] for row in fresh.get("stock", product_id="P-007").json()["data"]] == [7]
    since = rows[0]["updated_at"]
    assert len(fresh.get("stock", "application/x-ndjson", updated_since=since).text.splitlines()) == 250
    assert fresh.get("stock", updated_since="2199-01-01").json()["data"] == []
    lines = fresh.get("stock", "application/x-ndjson").text.splitlines()
    assert [json.loads(line) for line in lines] == rows
    head, first, *_ = fresh.get("stock", "text/csv").text.split("\r\n")
    assert head == "product_id,quantity,version,updated_at"
    assert first.startswith("P-000,0,1,20")
    for query in ({"below": "many"}, {"below": "1_0"}, {"updated_since": "today"}, {"sku": "x"}):
        problem(fresh.get("stock", **query), 400, "bad_parameter")
    problem(fresh.get("stock/P-001", below=1), 400, "bad_parameter")
    eventually(lambda: "applied-up-to" in fresh.get("stock").headers)


def test_a_history_has_pages_and_streams(fresh: Warehouse) -> None:
    fresh.takes(*[moved("received", 1) for _ in range(25)])
    fresh.takes(*[moved("received", 1) for _ in range(5)])
    eventually(lambda: len(fresh.history()) == 30)
    first = fresh.get(f"stock/{PRODUCT}/history", limit=12).json()
    second = fresh.get(f"stock/{PRODUCT}/history", limit=100, cursor=first["next_cursor"]).json()
    assert [row["quantity"] for row in first["data"] + second["data"]] == list(range(30, 0, -1))
    assert second["next_cursor"] is None
    lines = fresh.get(f"stock/{PRODUCT}/history/", "application/x-ndjson").text.splitlines()
    assert [json.loads(line)["quantity"] for line in lines] == list(range(30, 0, -1))
    assert len(fresh.get(f"stock/{PRODUCT}/history", "text/csv").text.splitlines()) == 31
    problem(fresh.get("stock/other/history", cursor=first["next_cursor"]), 400, "bad_parameter")
    problem(fresh.get(f"stock/{PRODUCT}/history", outcome="lost"), 400, "bad_parameter")
    assert fresh.history("other") == []


def test_ids_may_hold_slashes(fresh: Warehouse) -> None:
    ids = ("a/b", "a/history", "a", "/", "50% off", "é/ü/")
    fresh.takes(*[moved("set", n, name) for n, name in enumerate(ids, 1)])
    eventually(lambda: fresh.level("%C3%A9%2F%C3%BC%2F") == (6, 1))
    assert fresh.level("a/b") == fresh.level("a%2Fb") == (1, 1)
    assert fresh.level("a%2Fhistory") == (2, 1)
    assert fresh.level("a/") == (3, 1)
    assert fresh.level("%2F") == (4, 1)
    assert fresh.level("50%25%20off") == (5, 1)
    eventually(lambda: len(fresh.history("a")) == 1)
    for name, n in (("a/b", 1), ("a/history", 2), ("a%2Fhistory", 2), ("a", 3), ("%C3%A9%2F%C3%BC%2F", 6)):
        assert [row["quantity"] for row in fresh.history(name)] == [n], name
    problem(fresh.get("stock/nothing"), 404, "not_found")
    problem(fresh.get("stock/a%00"), 404, "not_found")


async def publish(pipeline: Pipeline, tenant: str, event_id: str) -> None:
    row = {"product_id": PRODUCT, "name": "x", "price": "0.01", "currency": "EUR", "sku": "s", "active": True}
    async with Producer(pipeline.settings) as producer:
        await producer.publish_batch(tenant, "products", [row], event_id=event_id)


def test_an_event_id_that_another_topic_has_is_no_duplicate(fresh: Warehouse) -> None:
    event_id = fresh.takes(moved("received", 1))
    fresh.event(event_id)
    asyncio.run(publish(fresh.pipeline, fresh.tenant, event_id))
    fresh.pipeline.drained()
    assert fresh.get(f"products/{PRODUCT}").status_code == 200
    query = "SELECT applied FROM ledger WHERE tenant_id = %s AND event_id = %s"
    assert fresh.pipeline.sql(query, fresh.tenant, event_id) == [(1,), (1,)]


def test_one_tenants_stock_is_not_anothers(house: Warehouse, fresh: Warehouse) -> None:
    house.takes(moved("set", 4, "shared"))
    fresh.takes(moved("set", 5, "shared"))
    eventually(lambda: (house.level("shared"), fresh.level("shared")) == ((4, 1), (5, 1)))
    headers = {"X-API-Key": fresh.key}
    for path in ("stock", "stock/shared", "stock/shared/history"):
        problem(fresh.pipeline.http.get(house.url(path), headers=headers), 403, "wrong_tenant")
    problem(fresh.pipeline.http.post(house.url("stock-events"), content="{}", headers=headers), 403, "wrong_tenant")


def test_a_file_is_sent_in_order_and_again_doubles_nothing(fresh: Warehouse, tmp_path: Path) -> None:
    table = tmp_path / "moves.csv"
    lines = [
        "product_id;kind;quantity;expected_quantity",
        f"{PRODUCT};set;1;",
        f"{PRODUCT};adjusted;-9;",
        "Q;stolen;1;",
    ]
    lines += [f"{PRODUCT};received;1;{n}" for n in range(1, 7_001)]
    table.write_text("\n".join(lines))
    command = ("stock", str(table), "--tenant-id", fresh.tenant, "--api-key", fresh.key, "--gateway-url",
               str(fresh.pipeline.http.base_url))  # fmt: skip
    for _ in range(2):
        done = fresh.pipeline.cli(*command, "--wait", "--json")
        assert done.returncode == 1, done.stderr
        said = json.loads(done.stdout)
        assert (said["accepted"], said["refused"], said["applied"]) == (7_002, 1, 7_001)
        assert (said["rejected"], said["pending"]) == (1, 0)
        assert "moves.csv line 4: /kind invalid_value" in done.stderr
        assert "moves.csv line 3: insufficient_stock, adjusted -9 of 1" in done.stderr
    assert fresh.level() == (7_001, 7_001)
    done = fresh.pipeline.cli(*command)
    assert (done.returncode, done.stdout.strip()) == (1, "accepted 7,002, refused 1")
    done = fresh.pipeline.cli("stock", str(table), "--tenant-id", fresh.tenant)
    assert done.returncode == 2
    assert "give --api-key" in done.stderr
