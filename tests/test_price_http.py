"""Prices over HTTP: changes in, verdicts back, prices and alerts out, through real processes."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from pipeline import Pipeline, eventually
from shop import problem

from producers import tenants
from producers.tenants import Limits, Tenant

NDJSON = {"Accept": "application/x-ndjson"}
NOTHING_WRONG = {"rejected": 0, "errors": [], "errors_omitted": 0}


class Trader:
    """A tenant of the shared pipeline with prices."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.tenant, self.key = pipeline.tenant()
        self.headers = {"X-API-Key": self.key}

    def url(self, path: str) -> str:
        return f"/api/v1/tenants/{self.tenant}/{path}"

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        """`body` as JSON; bytes are sent as they are."""
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        named = self.headers | {name.replace("_", "-"): value for name, value in headers.items()}
        return self.pipeline.http.request(method, self.url(path), content=content, headers=named)

    def bulk(self, *changes: dict[str, Any], query: str = "", **headers: str) -> httpx.Response:
        body = b"\n".join(json.dumps(change).encode() for change in changes)
        return self.request("POST", "price-events" + query, body, **headers)

    def judged(self, *changes: dict[str, Any], **headers: str) -> list[dict[str, Any]]:
        """What became of changes, each as its line."""
        _, *told, _ = lines(self.bulk(*changes, **NDJSON, **headers))
        return told

    def get(self, path: str, **query: Any) -> Any:
        answer = self.pipeline.http.get(self.url(path), params=query or None, headers=self.headers)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def price(self, product: str) -> dict[str, Any]:
        """What is known of a product's price; `product` as it stands in the path."""
        answer = self.request("GET", f"prices/{product}")
        assert answer.status_code in (200, 404), answer.text
        return dict(answer.json()) if answer.status_code == 200 else {"version": 0, "price": None, "changes": []}

    def alerts(self, count: int, **query: Any) -> list[dict[str, Any]]:
        return list(eventually(lambda: len(said := self.get("price-alerts", **query)["data"]) >= count and said))

    def policy(self, **prices: Any) -> None:
        admin = {"Authorization": f"Bearer {self.pipeline.settings.admin_token}"}
        url = f"/api/v1/admin/tenants/{self.tenant}"
        self.pipeline.http.patch(url, json={"policies": {"prices": prices}}, headers=admin).raise_for_status()


def lines(answer: httpx.Response) -> list[dict[str, Any]]:
    assert (answer.status_code, answer.headers["content-type"]) == (202, "application/x-ndjson"), answer.text
    assert answer.headers["idempotency-key"]
    return [json.loads(line) for line in answer.text.splitlines()]


def to(price: Any, product: str = "P-1", **more: Any) -> dict[str, Any]:
    return {"product_id": product, "new_price": price, **more}


@pytest.fixture(scope="module")
def market(pipeline: Pipeline) -> Iterator[Pipeline]:
    """At the end every change is accounted for, and no process had to restart."""
    yield pipeline
    pipeline.drained()
    assert [child.restarts for child in pipeline.children.values()] == [0] * len(pipeline.children)


@pytest.fixture
def trader(market: Pipeline) -> Trader:
    """A tenant for one test."""
    return Trader(market)


def test_one_change_is_judged_while_its_sender_waits(trader: Trader) -> None:
    change = {"old_price": None, "new_price": "20.00", "currency": "EUR", "source": "erp", "metadata": {"by": 1.5}}
    accepted, verdict, summary = lines(trader.request("POST", "products/P-1/price-event", change, **NDJSON))
    assert (accepted["type"], accepted["accepted"], len(accepted["event_ids"])) == ("accepted", 1, 1)
    assert verdict == {
        "type": "verdict", "line": 1, "product_id": "P-1", "status": "accepted", "findings": [], "price_before": None,
        "new_price": "20.00", "price_after": "20.00", "currency": "EUR", "new_currency": "EUR", "version": 1,
        "held_offset": None,
    }  # fmt: skip
    assert (summary["type"], summary["accepted"], summary["pending"]) == ("summary", 1, 0)
    answer = trader.request("POST", "products/P-1/price-event/", {"old_price": 20, "new_price": 2})
    assert answer.status_code == 202
    assert answer.json() == {"event_ids": answer.json()["event_ids"], "accepted": 1, **NOTHING_WRONG}
    said = eventually(lambda: (found := trader.price("P-1"))["version"] == 2 and found)
    assert (said["price"], said["currency"], said["floor"]) == ("2.00", "EUR", None)
    newest, first = said["changes"]
    assert (newest["status"], newest["findings"][0]["name"]) == ("anomaly", "decimal_shift")
    assert (first["source"], first["price_after"]) == ("erp", "20.00")
    event = trader.get(f"events/{answer.json()['event_ids'][0]}")
    assert (event["type"], event["rows"], event["applied"]) == ("tillstream.price-changes.v1", 1, 1)


def test_a_body_of_changes_is_judged_message_by_message(trader: Trader) -> None:
    changes = [to(f"{10 + n % 7}.00", f"P-{n}") for n in range(2_500)]
    body = b"\n".join([b"{", *(json.dumps(change).encode() for change in changes), b'{"new_price": -1}'])
    accepted, *told, summary = lines(trader.request("POST", "price-events", body, **NDJSON))
    assert (accepted["accepted"], accepted["rejected"], len(accepted["event_ids"])) == (2_500, 2, 3)
    codes = [(error["line"], error["pointer"], error["code"]) for error in accepted["errors"]]
    assert codes == [
        (1, "", "malformed_json"), (2_502, "/new_price", "negative_amount"), (2_502, "/product_id", "missing_field"),
    ]  # fmt: skip
    assert [(line["line"], line["product_id"]) for line in told] == [(n + 2, f"P-{n}") for n in range(2_500)]
    assert summary["accepted"] == 2_500
    plain = trader.bulk(to("10.50", "P-0"), to("1", "Q"))
    assert (plain.status_code, plain.json()["accepted"]) == (202, 2)
    eventually(lambda: trader.price("P-0")["price"] == "10.50")


def test_what_is_wrong_with_a_change_is_named(trader: Trader) -> None:
    wrong = [
        to("1.555"), to(None), to("1", "a\x00"), to("1", currency="eur"), to("1", metadata={"a": "x" * 10_000}),
        to("1", discount=1), {"product_id": "P"}, to("1", old_price=[]), to("1", source=""),
    ]  # fmt: skip
    said = problem(trader.bulk(*wrong), 422, "rows_rejected")["errors"]
    assert [(error["line"], error["pointer"], error["code"]) for error in said] == [
        (1, "/new_price", "too_many_decimals"), (2, "/new_price", "wrong_type"), (3, "/product_id", "nul_character"),
        (4, "/currency", "invalid_value"), (5, "/metadata", "too_long"), (6, "/discount", "unknown_field"),
        (7, "/new_price", "missing_field"), (8, "/old_price", "wrong_type"), (9, "/source", "invalid_value"),
    ]  # fmt: skip
    problem(trader.bulk(to("1"), to("-1"), query="?on_error=reject"), 422, "rows_rejected")
    many = [to("1", f"P-{n}") for n in range(1_001)]
    problem(trader.bulk(*many, query="?on_error=reject"), 413, "too_many_rows")
    dry = trader.bulk(to("1"), query="?validate_only=true", **NDJSON)
    assert (dry.status_code, dry.json()["validated_only"]) == (200, True)
    single = "products/P-1/price-event"
    problem(trader.request("POST", single, {"product_id": "P-2", "new_price": 1}), 400, "bad_document")
    assert trader.request("POST", single, {"product_id": "P-1", "new_price": 1}).status_code == 202
    problem(trader.request("POST", single, []), 422, "rows_rejected")
    problem(trader.request("POST", single, b"{"), 422, "rows_rejected")
    problem(trader.request("POST", single, b""), 400, "empty_body")
    problem(trader.request("POST", "products%2Fprice-event", {"new_price": 1}), 405, "method_not_allowed")
    problem(trader.request("POST", single, {"new_price": 1}, Accept="text/csv"), 406, "not_acceptable")
    problem(trader.bulk(to("1"), query="?wait=5s"), 400, "bad_parameter")


def test_a_price_without_a_currency_is_in_the_tenants(trader: Trader) -> None:
    first, second, other = lines(trader.bulk(to("10.00"), to("10.10"), to("10.10", currency="USD"), **NDJSON))[1:-1]
    assert [line["new_currency"] for line in (first, second, other)] == ["EUR", "EUR", "USD"]
    assert [finding["name"] for finding in other["findings"]] == ["currency_change"]
    assert (first["findings"], second["findings"]) == ([], [])
    [back] = lines(trader.bulk(to("10.10"), **NDJSON))[1:-1]
    assert (back["new_currency"], back["status"]) == ("EUR", "accepted")


def test_a_request_under_its_key_counts_once_and_is_answered_as_the_first_time(trader: Trader) -> None:
    body = [to(10 + n % 3, f"P-{n}") for n in range(1_500)] + [to(-1)]
    first = lines(trader.bulk(*body, **NDJSON, Idempotency_Key="list-17"))
    for _ in range(3):  # at first the streams tell, then the ledger
        again = lines(trader.bulk(*body, **NDJSON, Idempotency_Key="list-17"))
        assert again == [*first[:-1], first[-1] | {"detail": again[-1]["detail"]}]
    trader.pipeline.drained()
    replayed = trader.bulk(*body, **NDJSON, Idempotency_Key="list-17")
    assert (lines(replayed), replayed.headers["idempotent-replayed"]) == (first, "true")
    plain = trader.bulk(*body, Idempotency_Key="list-17")
    assert {**plain.json(), "type": "accepted"} == first[0]
    problem(trader.bulk(to(9), Idempotency_Key="list-17"), 422, "idempotency_key_reused")
    assert trader.get("prices/P-0")["version"] == 1


def test_a_key_that_comes_with_another_body_at_once_is_a_conflict(trader: Trader) -> None:
    path = "products/P-1/price-event"
    lines(trader.request("POST", path, {"new_price": 5}, **NDJSON, Idempotency_Key="k"))
    other = trader.request("POST", path, {"new_price": 6}, **NDJSON, Idempotency_Key="k")
    if other.status_code == 202:  # the ledger did not have the first yet
        *_, summary = lines(other)
        assert (summary["conflict"], summary["accepted"]) == (1, 0)
    else:
        problem(other, 422, "idempotency_key_reused")
    trader.pipeline.drained()
    assert trader.get("prices/P-1")["price"] == "5.00"


def test_single_changes_are_limited_a_tenant_and_a_product(trader: Trader) -> None:
    def limited(known: Tenant | None) -> Tenant:
        assert known is not None
        return Tenant(known.tenant_id, known.name, known.currency, known.keys, Limits(6, 2))

    tenants.change(trader.pipeline.settings, trader.tenant, limited)
    path = "products/{}/price-event"
    said = eventually(
        lambda: (answer := trader.request("POST", path.format("R"), {"new_price": 1})).headers["ratelimit-policy"]
        == '"tenant";q=6;w=60, "product";q=2;w=60' and answer
    )  # fmt: skip
    assert said.status_code == 202
    answers = [trader.request("POST", path.format("P"), {"new_price": 1}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [202, 202, 429]
    assert problem(answers[2], 429, "rate_limited")["violated-policies"] == ["product"]
    others = [trader.request("POST", path.format(f"S-{n}"), {"new_price": 1}) for n in range(4)]
    assert problem(others[-1], 429, "rate_limited")["violated-policies"] == ["tenant"]
    assert trader.bulk(to(2)).status_code == 202


def test_held_prices_wait_for_a_decision(trader: Trader) -> None:
    trader.judged(to(10, "P"), to(20, "Q"), to(30, "R"))
    trader.policy(actions={"decimal_shift": "hold"})
    held = trader.judged(to(100, "P"), to(200, "Q"), to(31, "R"))
    assert [line["status"] for line in held] == ["held", "held", "accepted"]
    assert (held[0]["price_after"], held[0]["findings"][0]["name"]) == ("10.00", "decimal_shift")
    [p, q] = [{"product_id": line["product_id"], "held_offset": line["held_offset"]} for line in held[:2]]
    said = {"decision": "approve", "held": [p], "decided_by": "Ada", "reason": "yes"}
    accepted, verdict, summary = lines(trader.request("POST", "price-decisions", said, **NDJSON))
    assert (accepted["accepted"], summary["accepted"]) == (1, 1)
    assert (verdict["status"], verdict["price_before"], verdict["price_after"]) == ("accepted", "10.00", "100.00")
    assert trader.request("POST", "price-decisions", {"decision": "reject", "held": [q]}).status_code == 202
    _, late, _ = lines(trader.request("POST", "price-decisions", said, **NDJSON))
    assert (late["status"], late["findings"][0]["name"]) == ("superseded", "not_held")
    eventually(lambda: all(alert["decision"] for alert in trader.alerts(2, status="held")))
    of_q, of_p = trader.alerts(2, status="held")
    assert (of_p["decision"]["decision"], of_p["decision"]["decided_by"]) == ("approve", "Ada")
    assert (of_q["decision"]["decision"], of_q["decision"]["reason"]) == ("reject", None)
    assert [row["status"] for row in trader.get("prices/P/history")["data"]][-3:] == ["accepted", "held", "accepted"]
    for wrong in (
        {"decision": "maybe", "held": [p]}, {"decision": "reject", "held": []}, {"decision": "reject"}, [],
        {"decision": "reject", "held": [p | {"line": 1}]},
    ):  # fmt: skip
        problem(trader.request("POST", "price-decisions", wrong), 400, "bad_document")
    for odd in ({"held": [p], "decided_by": "\x00"}, {"held": [{"product_id": " x", "held_offset": 1}]}):
        problem(trader.request("POST", "price-decisions", odd | {"decision": "reject"}), 422, "bad_price_rule")


def test_limits_and_bounds_hold_from_where_they_are_said(trader: Trader) -> None:
    assert [line["status"] for line in trader.judged(to("9.00", "a/b"), to("9.00", "a/b", source="x"))] == [
        "accepted", "accepted",
    ]  # fmt: skip
    said = trader.request("PUT", "products/a/b/price-limits", {"floor": "8.50", "ceiling": 12}, **NDJSON)
    assert [line["type"] for line in lines(said)] == ["accepted", "verdict", "summary"]
    [below] = trader.judged(to("8.00", "a/b"))
    assert [found["name"] for found in below["findings"]] == ["floor"]
    trader.policy(max_decrease_percent=5, actions={"bounds": "reject"})
    [bound] = trader.judged(to("8.20", "a/b"))
    assert bound["status"] == "rejected"
    found = eventually(lambda: len((said := trader.price("a/b"))["changes"]) == 4 and said)
    assert (found["floor"], found["ceiling"], found["price"]) == ("8.50", "12.00", "8.00")
    for wrong in ({"floor": 9, "ceiling": 8}, {"floor": "many"}, {"floor": -1}, {"ceiling": [1]}, {"floor": 1.555}):
        problem(trader.request("PUT", "products/P/price-limits", wrong), 422, "bad_price_rule")
    for wrong in ({"flor": 1}, b"{", []):
        problem(trader.request("PUT", "products/P/price-limits", wrong), 400, "bad_document")
    assert trader.request("PUT", "products/a%2Fb/price-limits/", {}).status_code == 202
    eventually(lambda: trader.get("prices/a%2Fb")["floor"] is None)
    assert trader.request("PUT", "products/new/price-limits", {"ceiling": 3}).status_code == 202
    eventually(lambda: "floor" in trader.price("new"))
    new = trader.get("prices/new")
    assert (new["price"], new["version"], new["ceiling"], new["changes"]) == (None, 0, "3.00", [])


def test_alerts_are_listed_filtered_and_paged(trader: Trader) -> None:
    trader.judged(*[to(10, f"P-{n:02d}") for n in range(30)])
    for n in range(30):
        trader.judged(to(100 if n % 3 else 0, f"P-{n:02d}", metadata={"n": n}))
    every = trader.alerts(30)
    assert [alert["product_id"] for alert in every] == [f"P-{n:02d}" for n in range(29, -1, -1)]
    assert {(alert["status"], alert["findings"][0]["name"]) for alert in every} == {
        ("anomaly", "decimal_shift"), ("rejected", "non_positive"),
    }  # fmt: skip
    pages, cursor = [], {}
    while True:
        page = trader.get("price-alerts", limit=7, **cursor)
        pages += page["data"]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert pages == every
    assert len(trader.get("price-alerts", status="rejected")["data"]) == 10
    assert len(trader.get("price-alerts", name="decimal_shift,jump")["data"]) == 20
    scores = [max(found["score"] for found in alert["findings"]) for alert in every]
    for least in {*scores, 0, 100}:
        found = trader.get("price-alerts", min_score=least)["data"]
        assert len(found) == sum(score >= least for score in scores)
    [one] = trader.get("price-alerts", product_id="P-07")["data"]
    assert (one["metadata"], one["price_before"], one["decision"]) == ({"n": 7}, "10.00", None)
    half = every[15]["logged_at"]
    assert len(trader.get("price-alerts", **{"from": half})["data"]) == 16
    assert len(trader.get("price-alerts", to=half)["data"]) == 14
    url, streamed = trader.url("price-alerts"), trader.headers | NDJSON
    text = trader.pipeline.http.get(url, headers=streamed).text
    assert [json.loads(line) for line in text.splitlines()] == every
    for query in ({"status": "accepted"}, {"name": "invalid"}, {"from": "today"}, {"sku": "x"}):
        problem(trader.pipeline.http.get(url, params=query, headers=trader.headers), 400, "bad_parameter")
    history = trader.get("prices/P-00/history", status="rejected")["data"]
    assert [(row["status"], row["new_price"], row["version"]) for row in history] == [("rejected", "0.00", 1)]
    problem(trader.request("GET", "prices/nothing"), 404, "not_found")


def test_another_tenant_sees_nothing_of_it(trader: Trader, market: Pipeline) -> None:
    other = Trader(market)
    trader.judged(to(10), to(100))
    trader.alerts(1)
    assert other.get("price-alerts")["data"] == []
    assert other.get("prices/P-1/history")["data"] == []
    problem(other.request("GET", "prices/P-1"), 404, "not_found")
    for method, path in (
        ("GET", "price-alerts/stream"), ("GET", "price-alerts"), ("GET", "prices/P-1"), ("POST", "price-events"),
        ("POST", "products/P-1/price-event"), ("PUT", "products/P-1/price-limits"), ("POST", "price-decisions"),
    ):  # fmt: skip
        answer = market.http.request(method, trader.url(path), headers=other.headers, json={"new_price": 1})
        problem(answer, 403, "wrong_tenant")
