"""Kafka: whether it answers, as whom, whether its topics are ours, whether copies are missing, its clock."""

import time
from collections.abc import Iterator
from typing import Any, Final

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from deploy.doctor.finding import Finding, fail, ok, warn
from producers import admin
from schemas import topics
from schemas.errors import Misconfigured, Unavailable
from schemas.settings import Settings

_WITHIN_S: Final = 5.0
_AHEAD_S: Final = 2.0


def look(settings: Settings) -> Iterator[Finding]:
    """Reach, topics, copies, clock; nothing more where it does not answer."""
    client = AdminClient({**settings.kafka, "log_level": 0})
    at = f"{settings.kafka_bootstrap_servers} ({settings.kafka_security_protocol})"
    asked = time.monotonic()
    try:
        metadata = client.list_topics(timeout=_WITHIN_S)
    except KafkaException as exc:
        remedy = (
            "is it up, is KAFKA_BOOTSTRAP_SERVERS right, do KAFKA_SECURITY_PROTOCOL and KAFKA_SASL_* fit its listener?"
        )
        yield fail("Kafka", f"{at} does not answer: {exc.args[0].str()}", remedy)
        return
    took = (time.monotonic() - asked) * 1000
    yield ok("Kafka", f"{at}: {len(metadata.brokers)} brokers, answered in {took:.0f} ms")
    try:
        partitions = admin.verify(settings)
        yield ok("topics", f"all {len(topics.CATALOGUE)} fit the catalogue, {partitions} partitions each")
    except Misconfigured as exc:
        yield fail("topics", str(exc), "as it says; no process starts until then")
        return
    except Unavailable as exc:
        yield fail("topics", str(exc), "look at the brokers' logs")
        return
    ours = [metadata.topics[settings.named(name)] for name in topics.CATALOGUE]
    yield from _copies(ours, len(metadata.brokers))
    yield from _clock(client, settings, partitions)


def _copies(ours: list[Any], brokers: int) -> Iterator[Finding]:
    partitions = [(topic.topic, partition) for topic in ours for partition in topic.partitions.values()]
    leaderless = [f"{name}[{p.id}]" for name, p in partitions if p.leader < 0]
    behind = [f"{name}[{p.id}]" for name, p in partitions if len(p.isrs) < len(p.replicas)]
    single = sum(len(p.replicas) == 1 for _, p in partitions)
    if leaderless:
        yield fail("copies", f"without a leader: {_some(leaderless)}", "start the brokers that hold them")
    elif behind:
        yield warn("copies", f"behind their leader: {_some(behind)}", "look at the brokers that hold the others")
    elif single and brokers > 1:
        remedy = "kafka-reassign-partitions; TILLSTREAM_REPLICATION is only for topics that are still to be made"
        yield warn("copies", f"{single} partitions have one copy, though there are {brokers} brokers", remedy)
    else:
        yield ok("copies", "every partition has a leader and all its copies")


def _clock(client: AdminClient, settings: Settings, partitions: int) -> Iterator[Finding]:
    """Kafka stamps what it appends; versions of rows are those stamps."""
    name = settings.named(topics.INGESTION)
    wanted = {TopicPartition(name, partition): OffsetSpec.max_timestamp() for partition in range(partitions)}
    newest = max(future.result().timestamp for future in client.list_offsets(wanted).values())
    ahead = newest / 1000 - time.time()
    if ahead > _AHEAD_S:
        yield warn("Kafka clock", f"the last message was appended {ahead:.1f} s in the future", "set the clocks (NTP)")


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
