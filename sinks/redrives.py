"""What operators did about dead letters, as notes: in the topic `redrives`, from which every database has them.

A redrive has a note before its message is sent, and one when that ended; both are one row of the table.
"""

import json
import logging
import re
import time
import uuid
from typing import Any, Final

import confluent_kafka
import psycopg
from confluent_kafka.admin import AdminClient, OffsetSpec

from schemas import codec, topics
from schemas.envelope import headers_of
from schemas.errors import Rejected, Unavailable
from schemas.settings import Settings
from sinks.records import storable
from sinks.sql import statement

log = logging.getLogger(__name__)

TYPE: Final = "tillstream.redrive.v1"
Note = codec.Record
"""As the Avro type has it: where the letters lie, who sends them, why, after which patch, and how that ended."""

_ROWS: Final = re.compile(r"([0-9]{1,9}(,[0-9]{1,9})*)?", re.ASCII)
_LAST_MS: Final = 253_402_300_799_000
_TEXTS: Final = ("topic", "tenant_id", "claimed", "original_id", "event_id", "by", "why", "detail")


def publish(settings: Settings, kafka: confluent_kafka.Producer, note: Note) -> None:
    """Put a note on its topic. Raises Unavailable where Kafka did not acknowledge it."""
    failed: list[str] = ["no answer"]
    value = codec.encode(TYPE, note)
    headers = headers_of(
        event_id=f"{note['note']}/{note['result']}", type=TYPE, source="dlq", accepted_ms=note["begun_ms"], rows=1,
        value=value, traceparent=None,
    )  # fmt: skip

    def delivered(error: confluent_kafka.KafkaError | None, _: confluent_kafka.Message) -> None:
        failed[:] = [] if error is None else [error.str()]

    key = topics.partition_key(note["claimed"])
    kafka.produce(settings.named(topics.REDRIVES), value, key, 0, headers=headers, on_delivery=delivered)
    kafka.flush(settings.delivery_timeout_s + 1)
    if failed:
        raise Unavailable(f"Kafka did not acknowledge the note of this redrive: {failed[0]}. Try the same again")


def read(record: confluent_kafka.Message) -> list[Note]:
    """The note of a record; nothing where a stranger wrote what is none."""
    try:
        return [_checked(codec.decode(TYPE, record.value()))]
    except Rejected as exc:
        log.error("redrives@%d ignored: %s", record.offset(), exc)
        return []


def store(db: psycopg.Connection[Any], notes: list[Note]) -> None:
    """Keep notes; what is known already stays."""
    for note in notes:
        db.execute(statement("insert_redrive"), note)
        db.execute(statement("end_redrive"), note)


def await_known(db: psycopg.Connection[Any], settings: Settings, seconds: float) -> None:
    """Return when the sinks have written all notes into this database. Raises Unavailable.

    One that was emptied, or put back to an older state, does not know yet what was sent.
    """
    topic = settings.named(topics.REDRIVES)
    at = confluent_kafka.TopicPartition(topic, 0)
    kafka = AdminClient({**settings.kafka, "log_level": 0})
    latest = kafka.list_offsets({at: OffsetSpec.latest()}, request_timeout=seconds)[at]
    try:
        end = latest.result().offset
    except confluent_kafka.KafkaException as exc:
        raise Unavailable(f"Kafka does not say where {topic} ends: {exc.args[0].str()}. Try again") from exc
    deadline = time.monotonic() + seconds
    while True:
        row = db.execute("SELECT next_offset FROM sink_offsets WHERE topic = %s", [topic]).fetchone()
        known = row[0] if row else 0
        if known >= end:
            return
        if time.monotonic() > deadline:
            raise Unavailable(
                f"the sinks have written {known} of {end} notes of redrives into this database: it may not know what"
                " was sent before. Try again when they have caught up; tillstream doctor shows whether they run"
            )
        time.sleep(0.1)


def _checked(note: Note) -> Note:
    for name in _TEXTS:
        note[name] = storable(note[name])
    times = [one for one in (note["begun_ms"], note["ended_ms"]) if one is not None]
    try:
        uuid.UUID(note["note"])
        patch = note["patch"] and json.loads(note["patch"])
    except ValueError as exc:
        raise Rejected("invalid_value", f"neither a UUID nor JSON: {exc}") from exc
    sound = note["by"] and note["why"] and _ROWS.fullmatch(note["rows"]) and (note["n"] is None or note["n"] > 0)
    if not sound or "\\u0000" in json.dumps(patch) or not all(0 <= one <= _LAST_MS for one in times):
        raise Rejected("invalid_value", "no redrive that could have been")
    return note
