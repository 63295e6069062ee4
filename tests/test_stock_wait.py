"""?wait= of POST /stock-events: what became of each movement, in the answer."""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from folding import Folding, movement
from gateways import gateway
from pipeline import Pipeline, eventually
from shop import problem
from test_stock_http import Warehouse, moved

from gateway.tail import MAX_OF_TENANT
from sinks.audit import audit


def lines(answer: httpx.Response) -> list[dict[str, Any]]:
    assert (answer.status_code, answer.headers["content-type"]) == (202, "application/x-ndjson"), answer.text
    assert answer.headers["idempotency-key"]
    return [json.loads(line) for line in answer.text.splitlines()]


def waits(house: Warehouse, *movements: Any, seconds: str = "20s", **headers: str) -> list[dict[str, Any]]:
    return lines(house.post(*movements, query=f"?wait={seconds}", **headers))


@pytest.fixture
def house(pipeline: Pipeline) -> Warehouse:
    return Warehouse(pipeline)


def test_the_answer_then_each_movement_then_a_summary(house: Warehouse) -> None:
    first, *told, last = waits(
        house, moved("received", 10), "{", moved("sold", 12), moved("sold", 4), moved("set", 1, "Q/1"),
        moved("adjusted", 1, expected_quantity=9),
    )  # fmt: skip
    [event_id] = first["event_ids"]
    assert (first["type"], first["accepted"], first["rejected"], first["errors"][0]["line"]) == ("accepted", 5, 1, 2)
    names = ("line", "product_id", "outcome", "code", "quantity", "version", "detail")
    assert [line["type"] for line in told] == ["movement"] * 5
    assert [tuple(line[name] for name in names) for line in told] == [
        (1, "P-1", "applied", None, 10, 1, ""),
        (3, "P-1", "rejected", "insufficient_stock", 10, 1, "sold 12 of 10"),
        (4, "P-1", "applied", None, 6, 2, ""),
        (5, "Q/1", "applied", None, 1, 1, ""),
        (6, "P-1", "rejected", "expected_quantity_mismatch", 6, 2, "expected 9, the level is 6 (version 2)"),
    ]
    assert last == {
        "type": "summary", "event_id": event_id, "status": "applied", "detail": "", "applied": 3, "superseded": 0,
        "duplicate": 0, "rejected": 2,
    }  # fmt: skip


def test_a_whole_message_is_told_and_a_single_event_too(house: Warehouse) -> None:
    first, *told, last = waits(house, *[moved("received", 1) for _ in range(5_000)], seconds="30")
    assert (first["accepted"], last["applied"]) == (5_000, 5_000)
    assert [line["quantity"] for line in told] == list(range(1, 5_001))
    _, sale, _ = waits(house, moved("sold", 1), Content_Type="application/json")
    assert (sale["quantity"], sale["version"]) == (4_999, 5_001)


def test_a_request_that_came_before_is_told_what_became_of_it_then(house: Warehouse) -> None:
    body = (moved("received", 5), moved("sold", 9))
    first = waits(house, *body, Idempotency_Key="k")
    for _ in range(3):  # at first the streams tell, then the ledger
        again = waits(house, *body, Idempotency_Key="k")
        assert again[:-1] == first[:-1]
        assert again[-1]["status"] in ("duplicate", "applied")
        assert (again[-1]["applied"], again[-1]["rejected"]) == (1, 1)
    house.pipeline.drained()
    replayed = house.post(*body, query="?wait=2s", Idempotency_Key="k")
    assert (lines(replayed), replayed.headers["idempotent-replayed"]) == (first, "true")
    problem(house.post(moved("set", 1), query="?wait=2s", Idempotency_Key="k"), 422, "idempotency_key_reused")


@pytest.mark.parametrize("wait", ["0", "31s", "5m", "-1", "", "5ss", "1e1", "٣"])
def test_a_wait_is_one_to_thirty_seconds(house: Warehouse, wait: str) -> None:
    said = problem(house.post(moved("set", 1), query=f"?wait={wait}"), 400, "bad_parameter")
    assert said["parameter"] == "wait"


def test_what_publishes_nothing_waits_for_nothing(house: Warehouse) -> None:
    assert house.post(moved("set", 1), query="?wait=5s&validate_only=true").status_code == 200
    problem(house.post(moved("sold", -1), query="?wait=5s"), 422, "rows_rejected")


def test_every_gateway_hears_of_every_event(house: Warehouse, tmp_path: Path) -> None:
    with gateway(house.pipeline, tmp_path / "second.log") as second:
        headers = {"X-API-Key": house.key}
        query = {"wait": "20s"}
        answer = second.post(house.url("stock-events"), json=moved("received", 1), headers=headers, params=query)
        assert lines(answer)[1]["quantity"] == 1


@pytest.fixture
def half(own_pipeline: Pipeline) -> Warehouse:
    """Without sinks."""
    own_pipeline.start("streams", "gateway")
    return Warehouse(own_pipeline)


def test_nothing_of_it_needs_postgresql(half: Warehouse) -> None:
    first = waits(half, moved("received", 5), Idempotency_Key="k")
    assert first[1]["quantity"] == 5
    accepted, repeat = waits(half, moved("received", 5), seconds="1s", Idempotency_Key="k")
    assert (accepted, repeat["status"], repeat["applied"]) == (first[0], "duplicate", 0)
    other, conflict = waits(half, moved("received", 6), Idempotency_Key="k")
    assert conflict["status"] == "conflict"
    assert conflict["detail"].endswith("other content")
    assert other["event_ids"] != first[0]["event_ids"]


@pytest.fixture(scope="module")
def lonely(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A gateway, and nothing behind it."""
    with Pipeline(tmp_path_factory.mktemp("lonely")) as pipeline:
        pipeline.start("gateway")
        yield pipeline


def test_what_is_not_decided_in_time_is_pending(lonely: Pipeline) -> None:
    house = Warehouse(lonely)
    started = time.monotonic()
    accepted, last = waits(house, moved("received", 1), seconds="1s")
    assert 1 <= time.monotonic() - started < 5
    [event_id] = accepted["event_ids"]
    assert (last["type"], last["status"], last["event_id"]) == ("summary", "pending", event_id)
    assert house.get(f"events/{event_id}").json()["status"] == "pending"


def test_only_its_own_tenants_outcome_ends_a_wait(lonely: Pipeline) -> None:
    house, other = Warehouse(lonely), Warehouse(lonely)
    folding = Folding(lonely)
    with lonely.http.stream(
        "POST", house.url("stock-events"), params={"wait": "20s"}, headers={"X-API-Key": house.key},
        content=json.dumps(moved("received", 1)),
    ) as answer:  # fmt: skip
        told = answer.iter_lines()
        [event_id] = json.loads(next(told))["event_ids"]
        folding.take(other.tenant, [movement("received", 7, "secret")], event_id=event_id)
        folding.take(house.tenant, [movement("received", 1)], event_id=event_id)
        assert json.loads(next(told))["quantity"] == 1
        assert json.loads(next(told))["status"] == "applied"
        assert list(told) == []


def test_an_audit_misses_what_is_not_decided(lonely: Pipeline) -> None:
    house = Warehouse(lonely)
    assert house.post(moved("received", 1), moved("sold", 1)).status_code == 202
    report = audit(lonely.settings)
    assert (report.drained, report.tenants[house.tenant].in_flight) == (False, 2)
    assert any("stock[" in missing and house.tenant in missing for missing in report.missing)


def waiting(pipeline: Pipeline) -> float:
    text = pipeline.http.get("/metrics").text
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith("tillstream_waiting_requests "))


def test_so_many_wait_and_those_who_leave_are_forgotten(lonely: Pipeline) -> None:
    house = Warehouse(lonely)
    eventually(lambda: waiting(lonely) == 0)

    async def crowd() -> list[int]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=lonely.http.base_url, limits=limits, timeout=30) as client:
            statuses: list[int] = []
            everyone = asyncio.Event()

            async def one() -> None:
                body, headers = json.dumps(moved("received", 1)), {"X-API-Key": house.key}
                async with client.stream(
                    "POST", house.url("stock-events"), params={"wait": "30s"}, headers=headers, content=body
                ) as answer:
                    statuses.append(answer.status_code)
                    if len(statuses) == MAX_OF_TENANT + 5:
                        everyone.set()
                    await asyncio.sleep(60)

            tasks = [asyncio.create_task(one()) for _ in range(MAX_OF_TENANT + 5)]
            await asyncio.wait_for(everyone.wait(), 30)
            assert await asyncio.to_thread(waiting, lonely) == MAX_OF_TENANT
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            return statuses

    statuses = asyncio.run(crowd())
    assert (statuses.count(202), statuses.count(503)) == (MAX_OF_TENANT, 5)
    eventually(lambda: waiting(lonely) == 0)
