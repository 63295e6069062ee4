"""What happens when processes die: in the middle of a step, of a flush, of a load."""

import signal
import threading
from collections import Counter
from pathlib import Path

import confluent_kafka
import httpx
import pytest
from pipeline import Pipeline, eventually
from test_end_to_end import order
from test_metrics import metric

from deploy.broker import Broker, free_port
from deploy.supervisor import Child, Supervisor
from producers import admin
from producers.ends import Ends
from schemas import topics
from schemas.settings import Settings

RAISE_WHILE = """
import pathlib, streams.dedup as dedup
decide, flag = dedup.decide_part, pathlib.Path({flag!r})
def raising(seen, key, envelope):
    if flag.exists() and envelope.rows == 13:
        if flag.read_text() == "once": flag.unlink()
        raise ZeroDivisionError("injected")
    return decide(seen, key, envelope)
dedup.decide_part = raising
"""

RAISE_IN_A_WRITE = """
import pathlib
from sinks import writer
write, flag = writer.write, pathlib.Path({flag!r})
def raising(*given):
    if flag.exists():
        flag.unlink()
        raise ZeroDivisionError("injected")
    return write(*given)
writer.write = raising
"""


def thirteen(first: int) -> bytes:
    """The body whose step the injected fault hits: it has 13 rows."""
    return b"".join(order(n) for n in range(first, first + 13))


def log_of(pipeline: Pipeline, topic: str) -> list[confluent_kafka.Message]:
    """Every committed message of a topic."""
    consumer = confluent_kafka.Consumer(
        {
            **pipeline.settings.kafka,
            "group.id": "test",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 10,
        }
    )
    name = pipeline.settings.named(topic)
    partitions = consumer.list_topics(name).topics[name].partitions
    consumer.assign([confluent_kafka.TopicPartition(name, p, confluent_kafka.OFFSET_BEGINNING) for p in partitions])
    messages, unread = [], set(partitions)
    while unread:
        message = consumer.poll(5)
        assert message is not None
        if message.error() is None:
            messages.append(message)
        else:
            assert message.error().code() == confluent_kafka.KafkaError._PARTITION_EOF
            unread.discard(message.partition())
    consumer.close()
    return messages


def test_an_exception_in_a_step_ends_the_process_and_the_event_is_applied_after_the_restart(
    own_pipeline: Pipeline, tmp_path: Path
) -> None:
    flag = tmp_path / "flag"
    flag.write_text("once")
    own_pipeline.start("streams", patch=RAISE_WHILE.format(flag=str(flag)))
    own_pipeline.start("sinks", "gateway")
    tenant, key = own_pipeline.tenant()
    for body in (order(1), thirteen(100), order(2)):
        own_pipeline.post(tenant, key, "orders", body)
    tally = own_pipeline.drained().tenants[tenant]
    assert tally.outcomes["applied"] == 15
    assert own_pipeline.children["streams"].restarts == 1
    assert "ZeroDivisionError: injected" in own_pipeline.log("streams")
    assert len(log_of(own_pipeline, "ingestion.unique")) == 3


def test_a_sink_whose_last_write_failed_does_not_wait_for_another_message(
    own_pipeline: Pipeline, tmp_path: Path
) -> None:
    flag = tmp_path / "flag"
    own_pipeline.start("sinks", patch=RAISE_IN_A_WRITE.format(flag=str(flag)))
    own_pipeline.start("streams", "gateway")
    tenant, key = own_pipeline.tenant()
    own_pipeline.drained()
    flag.touch()
    own_pipeline.post(tenant, key, "orders", order(1))
    assert own_pipeline.drained().tenants[tenant].outcomes["applied"] == 1
    assert own_pipeline.children["sinks"].restarts == 1
    assert "ZeroDivisionError: injected" in own_pipeline.log("sinks")


def test_the_third_crash_at_one_offset_dead_letters_that_message_alone(own_pipeline: Pipeline, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    flag.write_text("always")
    own_pipeline.start("streams", patch=RAISE_WHILE.format(flag=str(flag)))
    own_pipeline.start("sinks", "gateway")
    tenant, key = own_pipeline.tenant()
    for body in (order(1), thirteen(100), order(2)):
        own_pipeline.post(tenant, key, "orders", body)
    tally = own_pipeline.drained(within=90).tenants[tenant]
    assert (tally.outcomes["applied"], tally.outcomes["rejected"]) == (2, 13)
    assert own_pipeline.children["streams"].restarts == 3
    [letter] = log_of(own_pipeline, "dead-letters")
    assert dict(letter.headers())["ts-dlq-reason"] == b"processing_error"
    assert own_pipeline.sql("SELECT code FROM ledger WHERE outcome = 'rejected'") == [("processing_error",)]


def test_a_flush_whose_answer_was_lost_doubles_nothing(own_pipeline: Pipeline, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    flag.touch()
    patch = f"""
import pathlib, streams.steps as steps
transact, flag = steps.Steps._transact, pathlib.Path({str(flag)!r})
def failing(self, partition, records):
    transact(self, partition, records)
    if flag.exists():
        flag.unlink()
        raise RuntimeError("the commit landed, its answer did not")
steps.Steps._transact = failing
"""
    own_pipeline.start("streams", patch=patch)
    own_pipeline.start("sinks", "gateway")
    tenant, key = own_pipeline.tenant()
    for n in range(5):
        own_pipeline.post(tenant, key, "orders", order(n))
        own_pipeline.post(tenant, key, "orders", order(n), Idempotency_Key="again")
    tally = own_pipeline.drained().tenants[tenant]
    assert own_pipeline.children["streams"].restarts == 1
    assert (tally.outcomes["duplicate"], tally.outcomes["conflict"]) == (0, 4)
    assert len(log_of(own_pipeline, "ingestion.unique")) == 6
    assert len(log_of(own_pipeline, "outcomes")) == 4


def test_every_row_is_applied_once_though_streams_and_sinks_are_killed_in_the_middle(own_pipeline: Pipeline) -> None:
    own_pipeline.start("streams", "sinks", "gateway")
    shops = [own_pipeline.tenant() for _ in range(3)]
    rows_each, chunk = 20_000, 400
    replayed = Counter[str]()

    def load(tenant: str, key: str) -> None:
        for first in range(0, rows_each, chunk):
            body = b"".join(order(n) for n in range(first, first + chunk))
            for _ in range(1 + (first % 2_000 == 0)):  # some chunks go twice
                answer = own_pipeline.post(tenant, key, "orders", body, Idempotency_Key=f"chunk-{first}")
                assert answer.status_code == 202
                replayed[tenant] += chunk * (answer.headers.get("idempotent-replayed") == "true")

    loads = [threading.Thread(target=load, args=shop) for shop in shops]
    for thread in loads:
        thread.start()

    def applied() -> int:
        return int(own_pipeline.sql("SELECT coalesce(sum(applied), 0) FROM ledger")[0][0])

    for role in ("streams", "sinks", "sinks", "streams"):
        before = applied()
        eventually(lambda before=before: applied() > before or applied() == 3 * rows_each)
        own_pipeline.kill(role)
    for thread in loads:
        thread.join()
    report = own_pipeline.drained(within=90)
    assert own_pipeline.children["streams"].restarts >= 1
    assert own_pipeline.children["sinks"].restarts >= 1
    for tenant, _ in shops:
        assert report.tenants[tenant].outcomes["applied"] == rows_each
        assert report.tenants[tenant].outcomes["duplicate"] + replayed[tenant] == 10 * chunk
        assert own_pipeline.sql(
            "SELECT count(*), max(revision) FROM orders WHERE tenant_id = %s", tenant
        ) == [(rows_each, 0)]  # fmt: skip


def test_what_was_seen_before_a_restart_is_a_duplicate_after_it(own_pipeline: Pipeline) -> None:
    own_pipeline.settings = own_pipeline.settings_with(reader_database_url="")  # so that the gateway does not know
    own_pipeline.start("streams", "sinks", "gateway")
    shops = [own_pipeline.tenant() for _ in range(6)]
    for tenant, key in shops:
        own_pipeline.post(tenant, key, "orders", order(1), Idempotency_Key="k")
    own_pipeline.drained()
    own_pipeline.kill("streams")
    for tenant, key in shops:
        own_pipeline.post(tenant, key, "orders", order(1), Idempotency_Key="k")
    report = own_pipeline.drained()
    assert [report.tenants[tenant].outcomes["duplicate"] for tenant, _ in shops] == [1] * 6


def test_cut_database_connections_lose_nothing(own_pipeline: Pipeline) -> None:
    own_pipeline.start("streams", "sinks", "gateway")
    tenant, key = own_pipeline.tenant()
    for first in range(0, 10_000, 500):
        own_pipeline.post(tenant, key, "orders", b"".join(order(n) for n in range(first, first + 500)))
        own_pipeline.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tillstream-sink'"
            " AND datname = current_database()"
        )
    assert own_pipeline.drained().tenants[tenant].outcomes["applied"] == 10_000
    assert own_pipeline.children["sinks"].restarts == 0


def test_a_second_sink_takes_over_from_a_paused_one_whose_late_write_is_refused(own_pipeline: Pipeline) -> None:
    own_pipeline.start("streams", "gateway")
    own_pipeline.start("sinks", restarted=False)
    tenant, key = own_pipeline.tenant()
    own_pipeline.post(tenant, key, "orders", order(1))
    own_pipeline.drained()
    paused = own_pipeline.children["sinks"].process
    assert paused is not None
    paused.send_signal(signal.SIGSTOP)
    own_pipeline.start("sinks")
    for n in range(2, 12):
        own_pipeline.post(tenant, key, "orders", order(n))
    report = own_pipeline.drained()
    paused.send_signal(signal.SIGCONT)
    own_pipeline.post(tenant, key, "orders", order(99))
    report = own_pipeline.drained()
    assert report.tenants[tenant].outcomes["applied"] == 12


@pytest.fixture
def broker(tmp_path: Path) -> Broker:
    return Broker(tmp_path / "kafka", port=free_port())


def test_sinks_of_two_databases_share_no_partitions(own_pipeline: Pipeline, tmp_path: Path) -> None:
    own_pipeline.start("streams", "gateway")
    tenants = [own_pipeline.tenant() for _ in range(8)]
    (folder := tmp_path / "other").mkdir()
    with Pipeline(folder, prefix=own_pipeline.settings.prefix) as other:
        own_pipeline.start("sinks")
        other.start("sinks")
        for tenant, key in tenants:
            assert own_pipeline.post(tenant, key, "orders", order(1)).status_code == 202
        own_pipeline.drained()
        other.drained()
        assert own_pipeline.sql("SELECT count(*) FROM orders") == other.sql("SELECT count(*) FROM orders") == [(8,)]


def renamed(pipeline: Pipeline, tenant: str) -> int:
    headers = {"Authorization": f"Bearer {pipeline.settings.admin_token}"}
    return pipeline.http.patch(f"/api/v1/admin/tenants/{tenant}", json={"name": "New"}, headers=headers).status_code


def test_while_kafka_is_away_the_gateway_says_so_and_comes_back_with_it(
    own_pipeline: Pipeline, broker: Broker, tmp_path: Path
) -> None:
    with Supervisor() as supervisor:
        child = supervisor.add(Child("kafka", broker.command, tmp_path / "kafka.log", stop_within=broker.stop_within))
        broker.wait_ready(child.alive)
        settings: Settings = own_pipeline.settings
        moved = {"kafka_bootstrap_servers": broker.bootstrap_servers, "delivery_timeout_s": 2.0}
        own_pipeline.settings = type(settings)(**{f: getattr(settings, f) for f in settings.__slots__} | moved)
        admin.ensure(own_pipeline.settings)
        own_pipeline.start("gateway", "streams")
        tenant, key = own_pipeline.tenant()
        # A busy machine may take longer than the 2 s after which a gateway here says 503.
        eventually(lambda: own_pipeline.post(tenant, key, "orders", order(1)).status_code == 202)
        eventually(lambda: renamed(own_pipeline, tenant) == 200)
        ends, ingestion = Ends(own_pipeline.settings), own_pipeline.settings.named(topics.INGESTION)
        partitions = [(ingestion, partition) for partition in range(4)]
        taken = sum(ends.of(partitions).values())
        eventually(lambda: metric(own_pipeline, "streams", "tillstream_brokers_up", client="admin") == 1)
        child.stop()
        eventually(lambda: metric(own_pipeline, "streams", "tillstream_brokers_up", client="admin") == 0)
        with pytest.raises(confluent_kafka.KafkaException):
            ends.of(partitions, 1)
        answer = own_pipeline.post(tenant, key, "orders", order(2), Idempotency_Key="mine")
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert answer.headers["idempotency-key"] == "mine"
        assert (answer.json()["code"], answer.json()["retriable"]) == ("kafka_unavailable", True)
        eventually(lambda: own_pipeline.http.get("/readyz").status_code == 503)
        assert own_pipeline.http.get("/healthz").status_code == 200
        quick: httpx.Response = own_pipeline.post(tenant, key, "orders", order(2))
        assert quick.status_code == 503
        assert quick.elapsed.total_seconds() < 1
        child.start()
        broker.wait_ready(child.alive)
        eventually(lambda: own_pipeline.post(tenant, key, "orders", order(2)).status_code == 202)
        eventually(lambda: renamed(own_pipeline, tenant) == 200)  # a key must not stay unrevoked
        assert sum(ends.of(partitions).values()) > taken
