"""A source topic that is not the log the tables were made from ends the worker, which says what to do."""

import os
import subprocess
import sys

import confluent_kafka
import pytest
from confluent_kafka.admin import AdminClient
from pipeline import Pipeline, eventually
from test_recovery import log_of

from producers import admin
from producers.client import config
from schemas import topics
from schemas.settings import Settings
from streams import dedup

SOURCES = (topics.INGESTION, topics.STOCK, topics.PRICES)
TENANT = b"shop"


def put(settings: Settings, topic: str, key: bytes, value: bytes) -> None:
    """One record, on the partition of TENANT."""
    producer = confluent_kafka.Producer(config(settings))
    producer.produce(settings.named(topic), value, key, topics.partition_of(TENANT, settings.partitions))
    assert producer.flush(10) == 0


def folded(pipeline: Pipeline, *sources: str) -> None:
    """A message of each source has been flushed, and with it a fence: what cannot be read is a dead letter."""
    before = len(log_of(pipeline, topics.DEAD_LETTERS))
    for source in sources:
        put(pipeline.settings, source, TENANT, b"unreadable")
    eventually(lambda: len(log_of(pipeline, topics.DEAD_LETTERS)) == before + len(sources))


def made_again(settings: Settings, topic: str) -> None:
    """Delete a topic and make it again, empty."""
    kafka = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers})
    for deleted in kafka.delete_topics([settings.named(topic)]).values():
        deleted.result()
    eventually(lambda: settings.named(topic) not in kafka.list_topics(timeout=10).topics)
    admin.ensure(settings)


def start_refused(settings: Settings) -> str:
    """What a worker says that ends with exit code 2."""
    command, env = [sys.executable, "-m", "streams"], {**os.environ, **settings.env()}
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2, ended.stderr
    return ended.stderr


@pytest.mark.parametrize("topic", SOURCES)
def test_a_source_that_was_made_again_is_refused_at_the_next_start(own_pipeline: Pipeline, topic: str) -> None:
    own_pipeline.start("streams@a", restarted=False)
    folded(own_pipeline, *SOURCES)
    own_pipeline.stop("streams@a")
    made_again(own_pipeline.settings, topic)
    put(own_pipeline.settings, topic, TENANT, b"would be skipped as if it had come before")
    for _ in range(2):  # a restart helps as little
        said = start_refused(own_pipeline.settings)
        assert f"{own_pipeline.settings.named(topic)}[" in said
        assert "deleted and made again" in said
        assert "tillstream topics ensure" in said
    assert len(log_of(own_pipeline, topics.DEAD_LETTERS)) == len(SOURCES)


def test_a_source_that_is_made_again_under_a_running_worker_ends_it(own_pipeline: Pipeline) -> None:
    own_pipeline.start("streams@a", restarted=False)
    folded(own_pipeline, topics.STOCK)
    worker = own_pipeline.children["streams@a"].process
    assert worker is not None
    made_again(own_pipeline.settings, topics.STOCK)
    assert worker.wait(timeout=30) == 2
    assert "a source topic was deleted" in (said := own_pipeline.log("streams@a")) or "deleted and made again" in said
    assert "deleted and made again" in start_refused(own_pipeline.settings)


def test_a_source_that_ends_before_the_fence_is_refused(own_pipeline: Pipeline) -> None:
    own_pipeline.start("streams@a", restarted=False)
    folded(own_pipeline, topics.STOCK)
    own_pipeline.stop("streams@a")
    [fence] = [m.value() for m in log_of(own_pipeline, topics.STOCK_LEVELS) if m.key() == dedup.FENCE]
    offset, topic_id = fence[:8], fence[8:]
    assert int.from_bytes(offset, "big") == 0
    put(own_pipeline.settings, topics.STOCK_LEVELS, dedup.FENCE, (7).to_bytes(8, "big") + topic_id)
    said = start_refused(own_pipeline.settings)
    assert "ends at 1, but the tables hold its messages up to 7" in said
    assert "start over" in said


def test_a_fence_of_the_version_before_gets_its_topic_with_the_next_flush(own_pipeline: Pipeline) -> None:
    put(own_pipeline.settings, topics.STOCK, TENANT, b"read by the version before")
    put(own_pipeline.settings, topics.STOCK_LEVELS, dedup.FENCE, (0).to_bytes(8, "big"))
    own_pipeline.start("streams@a", restarted=False)
    folded(own_pipeline, topics.STOCK)
    fences = [m.value() for m in log_of(own_pipeline, topics.STOCK_LEVELS) if m.key() == dedup.FENCE]
    assert [len(fence) for fence in fences] == [8, 30]
    assert fences[-1][:8] == (1).to_bytes(8, "big")
    assert len(log_of(own_pipeline, topics.DEAD_LETTERS)) == 1
