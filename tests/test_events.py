"""GET /events/{event_id}: what became of an event, from its acceptance to its last row."""

import asyncio
import json
from typing import Any

import pytest
from pipeline import Pipeline, eventually
from shop import problem
from test_end_to_end import order

from producers import Producer


class Asked:
    """A tenant that asks what became of its events."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.tenant, self.key = pipeline.tenant()

    def get(self, event_id: str) -> Any:
        path = f"/api/v1/tenants/{self.tenant}/events/{event_id}"
        return self.pipeline.http.get(path, headers={"X-API-Key": self.key})

    def send(self, body: bytes, entity: str = "orders", **headers: str) -> str:
        """The event id of a body that is one message."""
        answer = self.pipeline.post(self.tenant, self.key, entity, body, **headers)
        assert answer.status_code == 202, answer.text
        [event_id] = answer.json()["event_ids"]
        return str(event_id)

    def said(self, event_id: str) -> dict[str, Any]:
        answer = self.get(event_id)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())


@pytest.fixture(scope="module")
def asked(pipeline: Pipeline) -> Asked:
    return Asked(pipeline)


def test_an_applied_event_says_so_and_where_it_lies(asked: Asked) -> None:
    event_id = asked.send(order(1) + order(2))
    said = eventually(lambda: (now := asked.said(event_id))["status"] != "pending" and now)
    known = {"event_id": event_id, "type": "tillstream.orders.v1", "status": "applied", "code": None, "detail": None}
    counts = {"rows": 2, "applied": 2, "superseded": 0, "duplicate": 0, "conflict": 0, "rejected": 0}
    more = {"errors": [], "errors_omitted": 0, "repeats": []}
    assert {name: said[name] for name in known | counts | more} == known | counts | more
    assert said.keys() - (known | counts | more).keys() == {"accepted_at", "applied_at", "position"}
    assert said["accepted_at"] < said["applied_at"]
    assert said["accepted_at"].endswith("Z")
    [line] = asked.pipeline.sql(
        "SELECT topic, partition, log_offset FROM ledger WHERE event_id = %s AND tenant_id = %s", event_id, asked.tenant
    )
    assert tuple(said["position"].values()) == line


def test_repeats_stand_beside_the_event_that_was_applied(asked: Asked) -> None:
    event_id = asked.send(order(3), Idempotency_Key="once")
    for body in (order(3), order(4)):
        asked.send(body, Idempotency_Key="once")
    said = eventually(lambda: len((now := asked.said(event_id)).get("repeats", ())) == 2 and now)
    assert said["status"] == "applied"
    assert [(line["status"], line["rows"]) for line in said["repeats"]] == [("duplicate", 1), ("conflict", 1)]
    assert said["repeats"][0]["position"]["offset"] > said["position"]["offset"]


def test_rows_that_were_refused_late_are_listed(asked: Asked) -> None:
    asked.send(b'{"product_id": "P-1", "sku": "taken", "name": "x", "price": 1}', "products")
    body = b"".join(
        json.dumps({"product_id": f"Q-{n}", "sku": "taken" if n % 2 else f"Q-{n}", "name": "x", "price": 1}).encode()
        + b"\n"
        for n in range(240)
    )
    event_id = asked.send(body, "products")
    said = eventually(lambda: (now := asked.said(event_id))["status"] != "pending" and now)
    assert (said["status"], said["applied"], said["rejected"]) == ("applied", 120, 120)
    assert (len(said["errors"]), said["errors_omitted"]) == (100, 20)
    assert said["errors"][0].keys() == {"line", "pointer", "code", "detail", "row"}
    assert (said["errors"][0]["line"], said["errors"][0]["code"]) == (2, "sku_taken")


async def publish(pipeline: Pipeline, tenant: str, event_id: str) -> None:
    row = {
        "external_order_id": "D-1",
        "total_amount": "0.01",
        "currency": "EUR",
        "order_status": "paid",
        "order_date": "2026-01-31T12:00:00Z",
    }
    async with Producer(pipeline.settings) as producer:
        await producer.publish_batch(tenant, "orders", [row], event_id=event_id)


def test_an_id_of_a_direct_producer_is_found(asked: Asked) -> None:
    asyncio.run(publish(asked.pipeline, asked.tenant, "2026-01-31/batch 17"))
    eventually(lambda: asked.get("2026-01-31%2Fbatch%2017").status_code == 200)
    assert asked.said("2026-01-31/batch%2017/")["status"] == "applied"


def test_an_event_is_pending_until_it_is_in_the_ledger_and_unknown_ids_are_404(own_pipeline: Pipeline) -> None:
    own_pipeline.start("gateway")  # and nothing that would apply it
    one, two = Asked(own_pipeline), Asked(own_pipeline)
    event_id = one.send(order(1))
    assert one.said(event_id) == {"event_id": event_id, "status": "pending"}
    problem(two.get(event_id), 404, "unknown_event")
    for unknown in (
        "nonsense",
        "00000000-0000-4000-8000-000000000000",
        event_id[:-1] + ("0" if event_id[-1] != "0" else "1"),
    ):
        problem(one.get(unknown), 404, "unknown_event")
    problem(one.get("a%00b"), 404, "not_found")
    problem(one.get(event_id + "?x=1"), 400, "bad_parameter")
