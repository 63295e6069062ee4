"""`producers` as a library, on a real Kafka: rows become messages, resends are known, and no failure is silent."""

import asyncio
import re
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pipeline import Pipeline, eventually

from deploy.broker import free_port
from producers import Producer, SyncProducer
from producers.sync import SyncBatches
from schemas import topics
from schemas.errors import Rejected, Unavailable
from schemas.settings import Settings
from schemas.values import Invalid

README = (Path(__file__).parents[1] / "README.md").read_text()


def order(n: int, **fields: Any) -> dict[str, Any]:
    row = {"total_amount": Decimal("12.50"), "currency": "EUR", "order_status": "paid"}
    return {"external_order_id": f"A-{n}", "order_date": datetime(2026, 1, 31, tzinfo=UTC)} | row | fields


def ledger(pipeline: Pipeline, tenant: str) -> list[tuple[str, str, int]]:
    """Event id, outcome and rows of each of a tenant's messages, in log order."""
    query = "SELECT event_id, outcome, rows FROM ledger WHERE tenant_id = %s ORDER BY log_offset"
    return [(row[0], row[1], row[2]) for row in pipeline.sql(query, tenant)]


def messages(pipeline: Pipeline, tenant: str, count: int) -> list[tuple[str, str, int]]:
    return list(eventually(lambda: len(found := ledger(pipeline, tenant)) >= count and found))


def orders(pipeline: Pipeline, tenant: str) -> list[tuple[Any, ...]]:
    query = "SELECT external_order_id, total_amount, raw_payload FROM orders WHERE tenant_id = %s ORDER BY 1"
    return pipeline.sql(query, tenant)


def away(settings: Settings) -> Settings:
    """Settings by which nobody answers."""
    return replace(settings, kafka_bootstrap_servers=f"127.0.0.1:{free_port()}", delivery_timeout_s=0.5)


def test_the_readme_s_programs_do_what_it_says(pipeline: Pipeline) -> None:
    section = README[README.index("## Produce directly") :]
    programs = re.findall(r"```python\n(.*?)```", section[: section.index("\n## ")], re.DOTALL)
    assert len(programs) == 2
    for program in programs:
        tenant, _ = pipeline.tenant()
        code = program.replace('"acme"', f'"{tenant}"')
        subprocess.run([sys.executable, "-W", "error", "-c", code], env=pipeline.settings.env(), check=True, timeout=60)
        assert {outcome for _, outcome, _ in messages(pipeline, tenant, 1)} == {"applied"}
        assert orders(pipeline, tenant)[0][:2] == ("A-1", Decimal("12.50"))


def test_rows_added_one_by_one_leave_as_full_messages_and_the_rest_at_the_end(pipeline: Pipeline) -> None:
    (one, _), (two, _) = pipeline.tenant(), pipeline.tenant("USD")
    big = {"note": "x" * 250_000}

    async def run() -> None:
        async with Producer(pipeline.settings) as producer, producer.batches(name="nightly", linger_s=None) as batches:
            for n in range(2_300):
                await batches.add(one, "orders", order(n))
                if n % 100 == 0:
                    await batches.add(
                        two, "products", {"product_id": f"P-{n}", "name": "x", "price": 1}, currency="USD"
                    )
            for n in range(5):
                await batches.add(two, "orders", order(n, **big))

    asyncio.run(run())
    first = [(f"nightly/orders/{rows}", "applied") for rows in ("1-1000", "1001-2000", "2001-2300")]
    assert [line[:2] for line in messages(pipeline, one, 3)] == first
    assert len(orders(pipeline, one)) == 2_300
    assert {line[0]: line[2] for line in messages(pipeline, two, 3)} == {
        "nightly/products/1-23": 23, "nightly/orders/1-3": 3, "nightly/orders/4-5": 2,
    }  # fmt: skip
    assert orders(pipeline, two)[0][2] == big

    asyncio.run(run())  # as after a crash of the program
    assert [line[:2] for line in messages(pipeline, one, 6)[3:]] == [(name, "duplicate") for name, _ in first]


def test_a_row_that_waits_is_sent_after_its_linger(pipeline: Pipeline) -> None:
    tenant, _ = pipeline.tenant()
    with SyncProducer(pipeline.settings) as producer, producer.batches(linger_s=0.1) as batches:
        batches.add(tenant, "orders", order(1))
        assert messages(pipeline, tenant, 1)[0][1:] == ("applied", 1)
        batches.add(tenant, "orders", order(2))
        assert messages(pipeline, tenant, 2)[1][1:] == ("applied", 1)
        batches.add(tenant, "orders", order(3))
    ids = [line[0] for line in messages(pipeline, tenant, 3)]
    assert [name.rpartition("/")[2] for name in ids] == ["1-1", "2-2", "3-3"]


def test_without_asyncio_from_several_threads(pipeline: Pipeline) -> None:
    tenant, _ = pipeline.tenant()
    with SyncProducer(pipeline.settings) as producer:
        assert producer.publish_batch(tenant, "orders", [order(0)], event_id="first") >= 0
        with producer.batches() as batches:

            def add(start: int) -> None:
                for n in range(start, start + 700):
                    batches.add(tenant, "orders", order(n))

            threads = [threading.Thread(target=add, args=[start]) for start in (1, 701, 1_401)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            batches.flush()
            assert sum(rows for _, _, rows in messages(pipeline, tenant, 4)) == 2_101
    assert len(orders(pipeline, tenant)) == 2_101


def test_a_wrong_row_raises_where_it_is_added_and_the_others_go(pipeline: Pipeline) -> None:
    tenant, _ = pipeline.tenant()
    with SyncProducer(pipeline.settings) as producer:
        with producer.batches(linger_s=None) as batches:
            batches.add(tenant, "orders", order(1))
            with pytest.raises(Invalid, match="line 2: expected at most 2 decimals"):
                batches.add(tenant, "orders", order(2, total_amount=Decimal("0.005")))
            with pytest.raises(Rejected, match="row_too_large"):
                batches.add(tenant, "orders", order(2, note="x" * topics.MAX_MESSAGE_BYTES))
            with pytest.raises(Rejected, match="shoes"):
                batches.add(tenant, "shoes", order(2))
            batches.add(tenant, "orders", order(3))
        with pytest.raises(Invalid, match="line 2"):
            producer.publish_batch(tenant, "orders", [order(4), order(5, currency="euros")], event_id="none of it")
    assert [line[1:] for line in messages(pipeline, tenant, 1)] == [("applied", 2)]
    assert [row[0] for row in orders(pipeline, tenant)] == ["A-1", "A-3"]


def test_movements_of_stock_go_the_same_way(pipeline: Pipeline) -> None:
    tenant, _ = pipeline.tenant()
    with SyncProducer(pipeline.settings) as producer:
        with producer.batches() as batches:
            for n in range(1_200):
                batches.add(tenant, "stock", {"product_id": f"P-{n % 2}", "kind": "received", "quantity": 1})
            with pytest.raises(Invalid, match="line 1201: stock has no such field"):
                batches.add(tenant, "stock", {"product_id": "P", "kind": "sold", "quantity": 1, "colour": "red"})
        producer.publish_batch(tenant, "stock", [{"product_id": "P-0", "kind": "sold", "quantity": 50}], event_id="s")
    query = "SELECT product_id, quantity FROM stock_levels WHERE tenant_id = %s ORDER BY 1"
    eventually(lambda: pipeline.sql(query, tenant) == [("P-0", 550), ("P-1", 600)])


def test_changes_of_prices_go_the_same_way(pipeline: Pipeline) -> None:
    tenant, _ = pipeline.tenant()
    changes = [{"product_id": f"P-{n}", "new_price": Decimal("10.50"), "source": "erp"} for n in range(1_200)]
    with SyncProducer(pipeline.settings) as producer:
        with producer.batches() as batches:
            for row in changes:
                batches.add(tenant, "prices", row, currency="EUR")
            with pytest.raises(Invalid, match="currency"):
                batches.add(tenant, "prices", changes[0])
            with pytest.raises(Invalid, match="prices has no such field"):
                batches.add(tenant, "prices", changes[0] | {"colour": "red"}, currency="EUR")
        dearer = [{"product_id": "P-0", "old_price": "10.50", "new_price": "105.00", "currency": "EUR"}]
        for _ in range(2):  # a resend
            producer.publish_batch(tenant, "prices", dearer, event_id="p")
    query = "SELECT price, currency, version, count(*) FROM prices WHERE tenant_id = %s GROUP BY 1, 2, 3 ORDER BY 1"
    wanted = [(Decimal("10.50"), "EUR", 1, 1_199), (Decimal("105.00"), "EUR", 2, 1)]
    eventually(lambda: pipeline.sql(query, tenant) == wanted)


async def awaited(producer: Producer) -> None:
    await producer.publish_batch("acme", "orders", [order(1)], event_id="e")


async def not_awaited(producer: Producer) -> None:
    producer.send("ingestion", b"acme", b"value")


async def at_the_end(producer: Producer) -> None:
    async with producer.batches() as batches:
        await batches.add("acme", "orders", order(1))


@pytest.mark.parametrize("use", [awaited, not_awaited, at_the_end])
def test_what_kafka_does_not_acknowledge_raises(settings: Settings, use: Callable[[Producer], Awaitable[None]]) -> None:
    async def run() -> None:
        async with Producer(away(settings)) as producer:
            await use(producer)

    with pytest.raises(Unavailable):
        asyncio.run(run())


def test_without_asyncio_it_raises_as_well(settings: Settings) -> None:
    with SyncProducer(away(settings)) as producer:
        with pytest.raises(Unavailable):
            producer.publish_batch("acme", "orders", [order(1)], event_id="e")
        with pytest.raises(Unavailable, match="batch .*/orders/1-1"), producer.batches() as batches:
            batches.add("acme", "orders", order(1))


def test_an_exception_in_the_block_is_the_one_that_comes_out(settings: Settings) -> None:
    def run() -> None:
        with SyncProducer(away(settings)) as producer, producer.batches(name="n", linger_s=None) as batches:
            for n in range(1_500):
                batches.add("acme", "orders", order(n))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        run()
    [note] = caught.value.__notes__
    assert note.startswith("batch n/orders/1-1000 was not sent either")


def flushed(batches: SyncBatches) -> bool:
    try:
        batches.flush()
    except Unavailable:
        return False
    return True


def test_what_failed_is_sent_again_under_its_own_id(pipeline: Pipeline) -> None:
    tenants = [pipeline.tenant()[0] for _ in range(3)]
    # The client's queue takes one such batch, and holds it for a while.
    settings = replace(pipeline.settings, max_inflight_bytes=600_000, linger_ms=300)
    with SyncProducer(settings) as producer, producer.batches(name="n", linger_s=None) as batches:
        for tenant in tenants:
            batches.add(tenant, "orders", order(1, note="x" * 500_000))
        with pytest.raises(Unavailable, match=r"n/orders/1-1 and 1 more not acknowledged.*too many bytes"):
            batches.flush()
        with pytest.raises(Unavailable, match="flush"):  # until then nothing is taken
            batches.add(tenants[0], "orders", order(2))
        eventually(lambda: flushed(batches))
        batches.add(tenants[0], "orders", order(2))
    assert messages(pipeline, tenants[0], 2) == [("n/orders/1-1", "applied", 1), ("n/orders/2-2", "applied", 1)]
    for tenant in tenants[1:]:
        assert messages(pipeline, tenant, 1) == [("n/orders/1-1", "applied", 1)]
