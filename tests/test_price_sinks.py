"""What sinks make of verdicts on prices: prices that only go forward, every change, limits, and the ledger."""

import random
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from judging import Judging, change
from pipeline import Pipeline

from schemas.envelope import Request
from schemas.prices import ACTIONS, HELD_PRICE_DECISION, PRICE_LIMITS, PRICE_POLICY, Status
from streams.price_state import amount

PRICES = "SELECT product_id, price::text, currency, version FROM prices WHERE tenant_id = %s ORDER BY product_id"
CHANGES = (
    "SELECT status, price_before::text, new_price::text, price_after::text, version, alert FROM price_changes"
    " WHERE tenant_id = %s AND product_id = %s ORDER BY log_offset, row_index"
)
COUNTS = (
    "SELECT outcome, rows, applied, superseded, duplicate, conflict, rejected FROM ledger"
    " WHERE tenant_id = %s AND event_id = %s"
)
SAME = {
    "prices": "SELECT * FROM prices ORDER BY tenant_id, product_id",
    "changes": "SELECT to_jsonb(c) FROM price_changes c ORDER BY tenant_id, product_id, log_offset, row_index",
    "limits": "SELECT * FROM price_limits ORDER BY tenant_id, product_id",
    "ledger": "SELECT to_jsonb(ledger) - 'applied_at' FROM ledger ORDER BY topic, partition, log_offset",
    "row_errors": "SELECT * FROM row_errors ORDER BY topic, partition, log_offset, row_index",
}
EARLY = 1_767_225_600_000_000


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """Sinks without streams: what they read is written by the tests."""
    with Pipeline(tmp_path_factory.mktemp("sinks")) as pipeline:
        pipeline.start("sinks")
        yield pipeline


def test_the_price_in_force_its_changes_and_the_ledger_say_what_streams_decided(alone: Pipeline) -> None:
    tenant, _ = alone.tenant()
    judging = Judging(alone)
    first = judging.take(tenant, [change(1_000), change(1_000), change(2_000, "Q/1", metadata='{"by": "x"}')])
    second = judging.take(
        tenant,
        [change(10_000), change(0, line=2), change(990, occurred_at=EARLY), change(2_050, "Q/1", event_id="mine")],
    )
    alone.drained()
    assert alone.sql(PRICES, tenant) == [("P", "100.00", "EUR", 2), ("Q/1", "20.50", "EUR", 2)]
    assert alone.sql(CHANGES, tenant, "P") == [
        ("accepted", None, "10.00", "10.00", 1, False), ("accepted", "10.00", "10.00", "10.00", 1, False),
        ("anomaly", "10.00", "100.00", "100.00", 2, True), ("rejected", "100.00", "0.00", "100.00", 2, True),
        ("superseded", "100.00", "9.90", "100.00", 2, False),
    ]  # fmt: skip
    kept = (
        "SELECT metadata->>'by', change_id, findings->0->>'name' FROM price_changes WHERE tenant_id = %s ORDER BY 1, 2"
    )
    assert ("x", None, None) in alone.sql(kept, tenant)
    assert (None, "mine", None) in alone.sql(kept, tenant)
    assert (None, None, "decimal_shift") in alone.sql(kept, tenant)
    assert alone.sql(COUNTS, tenant, first["event_id"]) == [("applied", 3, 3, 0, 0, 0, 0)]
    assert alone.sql(COUNTS, tenant, second["event_id"]) == [("applied", 4, 2, 1, 0, 0, 1)]
    [error] = alone.sql("SELECT row_index, line, code, natural_id, row FROM row_errors WHERE tenant_id = %s", tenant)
    assert error[:4] == (1, 2, "non_positive", "P")
    assert '"new_price":"0' in error[4]


def test_held_prices_and_decisions_about_them_count_once_each(alone: Pipeline) -> None:
    tenant, _ = alone.tenant()
    judging = Judging(alone)
    judging.take(tenant, [], PRICE_POLICY, actions=[{"finding": "decimal_shift", "action": "hold"}])
    judging.take(tenant, [change(1_000), change(1_000, "Q")])
    held = judging.take(tenant, [change(10_000), change(10_000, "Q")])
    decided = [{"product_id": "P", "held_offset": held["offset"], "decision": "approve"}]
    decided += [{"product_id": "Q", "held_offset": held["offset"], "decision": "reject"}]
    decided += [{"product_id": "x\x00" * 200, "held_offset": 7, "decision": "reject"}]
    why = {"decided_by": "Ada\x00", "reason": "r" * 2_000_0}
    decision = judging.take(tenant, decided, HELD_PRICE_DECISION, **why)
    judging.take(tenant, decided[:1], HELD_PRICE_DECISION, **why)
    alone.drained()
    assert alone.sql(PRICES, tenant) == [("P", "100.00", "EUR", 2), ("Q", "10.00", "EUR", 1)]
    assert [row[0] for row in alone.sql(CHANGES, tenant, "P")] == ["accepted", "held", "accepted", "superseded"]
    assert [row[0] for row in alone.sql(CHANGES, tenant, "Q")] == ["accepted", "held", "rejected"]
    assert alone.sql(COUNTS, tenant, held["event_id"]) == [("applied", 2, 2, 0, 0, 0, 0)]
    assert alone.sql(COUNTS, tenant, decision["event_id"]) == [("applied", 3, 2, 1, 0, 0, 0)]
    said = "SELECT decided_by, length(decision_reason) FROM price_changes WHERE tenant_id = %s AND held_offset = %s"
    assert set(alone.sql(said, tenant, held["offset"])) == {("Ada\ufffd", 500)}


def test_rows_that_are_nothing_are_kept_as_errors_only(alone: Pipeline) -> None:
    tenant, _ = alone.tenant()
    rows = [
        change(1, "x" * 5_000), change(1, "a\x00b"), change(1, currency="FOO"), change(1, source="s" * 900_0),
        change(1, metadata="\x00"), change(1, metadata="{no json"), {**change(1), "new_price": b"\x7f" * 30},
        change(1, "Q", metadata='{"a":\n1e999}'),
    ]  # fmt: skip
    said = Judging(alone).take(tenant, rows)
    alone.drained()
    assert alone.sql(COUNTS, tenant, said["event_id"]) == [("applied", 8, 2, 0, 0, 0, 6)]
    texts = "SELECT product_id, metadata::text FROM price_changes WHERE tenant_id = %s ORDER BY 1"
    assert alone.sql(texts, tenant) == [("P", '"{no json"'), ("Q", '"{\\"a\\":\\n1e999}"')]
    assert alone.sql("SELECT DISTINCT code FROM row_errors WHERE tenant_id = %s", tenant) == [("invalid",)]


def test_limits_are_those_said_last_whatever_somebody_sends(alone: Pipeline) -> None:
    tenant, _ = alone.tenant()
    judging = Judging(alone)
    limits = [{"product_id": "P", "floor": amount(100)}, {"product_id": "P", "floor": amount(200), "ceiling": b"\1"}]
    limits += [{"product_id": "Q", "ceiling": amount(2**62)}, {"product_id": "a\x00", "floor": b"\1"}]
    said = judging.take(tenant, limits, PRICE_LIMITS)
    alone.drained()
    query = "SELECT product_id, floor::text, ceiling::text FROM price_limits WHERE tenant_id = %s ORDER BY 1"
    assert alone.sql(query, tenant) == [("P", "2.00", "0.01"), ("Q", None, "46116860184273879.04")]
    assert alone.sql(COUNTS, tenant, said["event_id"]) == [("applied", 4, 3, 0, 0, 0, 1)]
    judging.take(tenant, [{"product_id": "P"}], PRICE_LIMITS)
    alone.drained()
    assert alone.sql(query, tenant)[0] == ("P", None, None)


def test_lines_that_had_come_are_duplicates_in_the_ledger(alone: Pipeline) -> None:
    tenant, _ = alone.tenant()
    request = Request(uuid.uuid4(), 1, 3, 3)
    rows = [change(100, f"P-{line}", line=line) for line in (1, 2, 3)]
    said = Judging(alone).take(tenant, rows, known=[(1, 2)], request=request)
    alone.drained()
    assert alone.sql(COUNTS, tenant, said["event_id"]) == [("applied", 3, 1, 0, 2, 0, 0)]
    query = "SELECT request_id, body_hash, first_line, last_line, total_lines FROM ledger WHERE tenant_id = %s"
    assert alone.sql(query, tenant) == [(request.id, b"\xab" * 16, 1, 3, 3)]


def random_rows(rng: random.Random) -> list[dict[str, Any]]:
    return [
        change(
            rng.choice([0, 1_000, 1_050, 10_000, rng.randrange(2_000)]), f"P-{rng.randrange(8)}",
            occurred_at=rng.choice([None, EARLY + rng.randrange(9)]), currency=rng.choice(["EUR", "EUR", "USD", "XXY"]),
            old_price=rng.choice([None, amount(1_000)]), metadata=rng.choice([None, '{"a": 1.5}', "{"]),
        )
        for _ in range(rng.randrange(1, 30))
    ]  # fmt: skip


def test_a_rebuilt_database_has_the_same_prices(own_pipeline: Pipeline) -> None:
    rng = random.Random(23)
    own_pipeline.backup()
    own_pipeline.start("sinks", restarted=False)
    shops = [own_pipeline.tenant()[0] for _ in range(3)]
    judging = Judging(own_pipeline)
    held: list[tuple[str, dict[str, Any]]] = []
    for _ in range(80):
        shop = rng.choice(shops)
        match rng.randrange(10):
            case 0:
                actions = [{"finding": name, "action": rng.choice(["flag", "hold", "reject"])} for name in ACTIONS]
                judging.take(shop, [], PRICE_POLICY, actions=actions)
            case 1:
                judging.take(
                    shop, [{"product_id": f"P-{rng.randrange(8)}", "floor": amount(rng.randrange(99))}], PRICE_LIMITS
                )
            case 2 | 3 if held:
                shop, row = rng.choice(held)
                decision = row | {"decision": rng.choice(["approve", "reject"])}
                judging.take(shop, [decision], HELD_PRICE_DECISION, decided_by="x")
            case _:
                said = judging.take(shop, random_rows(rng))
                held += [
                    (shop, {"product_id": row["product_id"], "held_offset": said["offset"]})
                    for row in said["rows"]
                    if row["status"] == "held"
                ]
    own_pipeline.drained()
    own_pipeline.stop("sinks")
    first = {name: own_pipeline.sql(query) for name, query in SAME.items()}
    assert {row[0]["status"] for row in first["changes"]} == set(Status)
    assert any(row[0]["held_offset"] for row in first["changes"])
    assert len(first["prices"]) > 15
    assert len(first["limits"]) > 2
    for rows in (1, 100_000):
        own_pipeline.restore()
        own_pipeline.settings = replace(own_pipeline.settings, sink_batch_rows=rows)
        own_pipeline.start("sinks", restarted=False)
        own_pipeline.drained()
        own_pipeline.stop("sinks")
        assert {name: own_pipeline.sql(query) for name, query in SAME.items()} == first, rows
