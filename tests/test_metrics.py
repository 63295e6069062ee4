"""What the processes of a real pipeline tell Prometheus of what happens to them."""

import json
import uuid
from collections.abc import Iterator
from typing import Any

import confluent_kafka
import httpx
import psycopg
import pytest
from pipeline import Pipeline, eventually
from prometheus_client.parser import text_string_to_metric_families

from producers import SyncProducer
from producers.batches import batch_of
from producers.client import config
from producers.rows import encoded, kind_of
from schemas.top_tenants import OTHER, SIZE

SLOW = """
import time, streams.ingestion as agent
decided = agent._unique
def slow(*step):
    time.sleep(0.3)
    return decided(*step)
agent._unique = slow
"""
LOSING = """
import streams.ingestion as agent
decided = agent._unique
def losing(step, *more):
    return "new" if (b"lost" in dict(step.event.message.headers).values()) else decided(step, *more)
agent._unique = losing
"""
IMPATIENT = "import sinks.law as law; law.PATIENCE_LOOKS, law._LOOK_S = 5, 0.2"


def samples(pipeline: Pipeline, role: str, name: str, **labels: str) -> list[Any]:
    """The samples of a metric that have these labels."""
    admin = {"Authorization": f"Bearer {pipeline.settings.admin_token}"}
    text = httpx.get(pipeline.urls[role].replace("readyz", "metrics"), headers=admin).text
    families = text_string_to_metric_families(text)
    found = (sample for family in families for sample in family.samples if sample.name == name)
    return [sample for sample in found if labels.items() <= sample.labels.items()]


def metric(pipeline: Pipeline, role: str, name: str, **labels: str) -> float:
    """Their sum."""
    return sum(sample.value for sample in samples(pipeline, role, name, **labels))


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """Streams and sinks that have seen no tenant yet."""
    with Pipeline(tmp_path_factory.mktemp("fresh")) as own:
        own.start("streams", "sinks")
        yield own


def order(number: int = 1) -> dict[str, str]:
    when = "2026-01-31T12:00:00Z"
    what = {"total_amount": "1.00", "currency": "EUR", "order_status": "paid", "order_date": when}
    return what | {"external_order_id": f"A-{number}"}


def test_rows_are_told_by_what_became_of_them(fresh: Pipeline) -> None:
    tenant = f"direct-{uuid.uuid4().hex[:8]}"
    with SyncProducer(fresh.settings) as producer:
        for event_id, rows in (("a", [1, 2, 3]), ("a", [1, 2, 3]), ("a", [4, 5]), ("b", [1])):
            producer.publish_batch(tenant, "orders", map(order, rows), event_id=event_id)
    tally = {name: rows for name, rows in fresh.drained().tenants[tenant].outcomes.items() if rows}
    assert tally.keys() == {"applied", "duplicate", "conflict"}

    def told() -> dict[str, float]:
        counted = samples(fresh, "sinks", "tillstream_rows_written_total", tenant=tenant)
        return {sample.labels["outcome"]: sample.value for sample in counted}

    eventually(lambda: told() == tally)  # it is counted after it is committed
    assert metric(fresh, "sinks", "tillstream_freshness_seconds_count", tenant=tenant, topic="ingestion") == 2


def test_a_thousand_tenants_are_few_series(fresh: Pipeline) -> None:
    run = uuid.uuid4().hex[:8]
    before = metric(fresh, "sinks", "tillstream_rows_written_total")
    with SyncProducer(fresh.settings) as producer, producer.batches() as batches:
        for n in range(1_000):
            batches.add(f"t-{run}-{n}", "orders", order())
    fresh.drained()
    eventually(lambda: metric(fresh, "sinks", "tillstream_rows_written_total") == before + 1_000)
    named = {sample.labels["tenant"] for sample in samples(fresh, "sinks", "tillstream_rows_written_total")}
    assert OTHER in named
    assert len(named) <= 2 * SIZE + 1


def test_a_sink_that_cannot_write_falls_behind_and_says_so(own_pipeline: Pipeline) -> None:
    own_pipeline.start("streams", "sinks", "gateway")
    tenant, key = own_pipeline.tenant()
    eventually(lambda: samples(own_pipeline, "sinks", "tillstream_unsettled_messages"))  # it is watched from here on

    def lag(unit: str) -> float:
        return max((sample.value for sample in samples(own_pipeline, "sinks", f"tillstream_lag_{unit}")), default=0.0)

    with psycopg.connect(own_pipeline.settings.database_url) as blocker:
        blocker.execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
        for n in range(5):
            assert own_pipeline.post(tenant, key, "orders", json.dumps(order(n)).encode()).status_code == 202
        eventually(lambda: lag("messages") >= 5 and lag("seconds") > 2)
        eventually(lambda: metric(own_pipeline, "sinks", "tillstream_unsettled_messages", topic="ingestion") == 5)
        eventually(lambda: metric(own_pipeline, "sinks", "tillstream_database_up", access="write") == 0)
    eventually(lambda: metric(own_pipeline, "sinks", "tillstream_database_up", access="write") == 1)
    eventually(lambda: lag("messages") == 0 and lag("seconds") == 0)
    eventually(lambda: metric(own_pipeline, "sinks", "tillstream_unsettled_messages", topic="ingestion") == 0)


def test_streams_that_are_slow_fall_behind_and_say_so(own_pipeline: Pipeline) -> None:
    own_pipeline.start("streams", patch=SLOW)
    with SyncProducer(own_pipeline.settings) as producer:
        for n in range(15):
            producer.publish_batch("t", "orders", [order(n)], event_id=str(n))

    def lag(unit: str) -> float:
        return metric(own_pipeline, "streams", f"tillstream_lag_{unit}", topic="ingestion")

    eventually(lambda: lag("messages") >= 3 and lag("seconds") > 0.5)
    eventually(lambda: lag("messages") == 0 and lag("seconds") == 0)


def test_a_message_that_streams_lose_breaks_the_law(own_pipeline: Pipeline) -> None:
    own_pipeline.start("streams", patch=LOSING)
    own_pipeline.start("sinks", patch=IMPATIENT)
    eventually(lambda: samples(own_pipeline, "sinks", "tillstream_unsettled_messages"))
    send(own_pipeline, "a", "b", transactional_id="markers")  # they take offsets, too, and are no messages
    send(own_pipeline, "c")
    eventually(lambda: metric(own_pipeline, "sinks", "tillstream_rows_written_total") == 3)
    eventually(lambda: metric(own_pipeline, "sinks", "tillstream_unsettled_messages") == 0)
    assert metric(own_pipeline, "sinks", "tillstream_unaccounted_messages_total") == 0
    send(own_pipeline, "lost", "d")
    eventually(lambda: metric(own_pipeline, "sinks", "tillstream_unaccounted_messages_total", topic="ingestion") == 1)
    assert "@4 was accepted and has no line in the ledger" in own_pipeline.log("sinks")
    eventually(lambda: metric(own_pipeline, "sinks", "tillstream_unsettled_messages") == 0)


def send(pipeline: Pipeline, *event_ids: str, transactional_id: str = "") -> None:
    """Produce messages of one order directly, in a transaction if it has an id."""
    settings = config(pipeline.settings) | ({"transactional.id": transactional_id} if transactional_id else {})
    kafka = confluent_kafka.Producer(settings)
    if transactional_id:
        kafka.init_transactions(10)
        kafka.begin_transaction()
    for n, event_id in enumerate(event_ids):
        kind = kind_of("orders")
        batch = batch_of(kind, "t", [encoded(kind.entity, order(n), 1, "")], event_id, "test")
        topic = pipeline.settings.named(batch.topic)
        kafka.produce(topic, batch.value, batch.key, headers=batch.headers)
    if transactional_id:
        kafka.commit_transaction(10)
    assert kafka.flush(10) == 0
