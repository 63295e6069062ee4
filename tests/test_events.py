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


def test_rows_that_a_gateway_refused_are_accounted_for_beside_those_it_accepted(asked: Asked) -> None:
    bad = b'{"external_order_id": "B-%d"}\n'
    whole = order(10) + bad % 1 + b"".join(map(order, range(11, 1_010))) + bad % 2  # two messages: 1,000 lines each
    answer = asked.pipeline.post(asked.tenant, asked.key, "orders", whole, Idempotency_Key="mixed")
    said = answer.json()
    assert (said["accepted"], said["rejected"], len(said["event_ids"])) == (1_000, 2, 2)
    asked.pipeline.drained()
    ends = [eventually(lambda e=e: (now := asked.said(e)).get("rejected") and now) for e in said["event_ids"]]
    assert [(end["status"], end["rows"], end["applied"], end["rejected"]) for end in ends] == [
        ("applied", 1_000, 999, 1),
        ("applied", 2, 1, 1),
    ]
    first = {"line": 2, "pointer": "/total_amount", "code": "missing_field", "detail": "total_amount is required"}
    assert ends[0]["errors"] == [first | {"row": (bad % 1).decode().strip()}]
    assert [error["line"] for error in ends[1]["errors"]] == [1_002]
    again = asked.pipeline.post(asked.tenant, asked.key, "orders", whole, Idempotency_Key="mixed")
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.json() == said
    kept = [eventually(lambda e=e: asked.said(e).get("errors")) for e in said["rejected_ids"]]
    assert [[error["line"] for error in errors] for errors in kept] == [[2], [1_002]]


def test_a_request_of_which_no_row_was_accepted_tells_where_its_rows_are_kept(asked: Asked) -> None:
    other = Asked(asked.pipeline)
    body = b'{"external_order_id": "B-3"}\n{"external_order_id":\n' + order(12)
    answer = asked.pipeline.post(asked.tenant, asked.key, "orders", body, "?on_error=reject", Idempotency_Key="none")
    [event_id] = problem(answer, 422, "rows_rejected")["rejected_ids"]
    said = eventually(lambda: (now := asked.said(event_id))["status"] != "pending" and now)
    assert (said["type"], said["status"]) == ("tillstream.rows-rejected.v1", "rejected")
    assert (said["rows"], said["applied"], said["rejected"]) == (2, 0, 2)
    assert [(error["line"], error["row"]) for error in said["errors"]] == [
        (1, '{"external_order_id": "B-3"}'),
        (2, '{"external_order_id":'),
    ]
    again = asked.pipeline.post(asked.tenant, asked.key, "orders", body, "?on_error=reject", Idempotency_Key="none")
    assert again.json() == answer.json()
    problem(other.get(event_id), 404, "unknown_event")
    dry = asked.pipeline.post(asked.tenant, asked.key, "orders", body, "?on_error=reject&validate_only=true")
    assert "rejected_ids" not in problem(dry, 422, "rows_rejected")  # nothing is kept


def test_refused_rows_of_another_tenant_under_the_same_request_stay_its_own(asked: Asked) -> None:
    """The request's id is a function of tenant and key; here a second tenant's ledger has the very same one."""
    body = order(13) + b'{"external_order_id": "B-4"}\n'
    event_id = asked.send(body, Idempotency_Key="shared")
    eventually(lambda: asked.said(event_id).get("rejected") == 1)
    other = Asked(asked.pipeline)
    mine = other.send(order(14), Idempotency_Key="shared")
    other.pipeline.drained()
    asked.pipeline.sql(
        "UPDATE ledger SET (request_id, body_hash, last_line) = (SELECT request_id, body_hash, last_line FROM ledger"
        " WHERE tenant_id = %s AND event_id = %s) WHERE tenant_id = %s RETURNING 1",
        asked.tenant, event_id, other.tenant,
    )  # fmt: skip
    said = other.said(mine)
    assert (said["rows"], said["rejected"], said["errors"]) == (1, 0, [])


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
