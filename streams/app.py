"""The Faust app: its settings, its tables and the agents, each readable as the flow."""

import time
from functools import lru_cache
from typing import Any

import faust
from faust.transport.drivers import aiokafka as driver

from schemas import codec, metrics, topics
from schemas.envelope import (
    INGESTION_TYPES,
    ROWS_REJECTED,
    Envelope,
    Headers,
    dead_letter_headers,
    forwarded,
    headers_of,
    read,
    tenant_text,
)
from schemas.errors import Undecodable
from schemas.settings import Settings
from streams import dedup
from streams.steps import Step, Steps, size_of
from streams.tables import Table

APP_ID = "tillstream-streams"
SWEEP_S = 600.0
_ROOM_FOR_HEADERS = 10_000
_KEPT_OF_TOO_LARGE = 1_000_000


class _Thread(driver.AIOKafkaConsumerThread):
    """Faust reads uncommitted records unless its own transactions are on; a direct producer may abort one."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = "read_committed"
        return consumer


class _Consumer(driver.Consumer):
    def _new_consumer_thread(self) -> Any:
        return _Thread(self, loop=self.loop, beacon=self.beacon)


class _Transport(driver.Transport):
    Consumer = _Consumer


class App(faust.App):
    """A Faust app whose steps are transactions."""

    settings: Settings
    steps: Steps

    def _new_transport(self) -> Any:
        return _Transport(self.conf.broker_consumer, self)


def create_app(settings: Settings, partitions: int) -> App:
    """The streams app over topics that have `partitions` partitions each."""
    app_id = settings.named(APP_ID)
    app = App(
        app_id,
        broker=[f"kafka://{server}" for server in settings.kafka_bootstrap_servers.split(",")],
        datadir=settings.streams_data_dir,
        consumer_group_instance_id=settings.streams_worker_id,
        consumer_auto_offset_reset="earliest",
        broker_session_timeout=settings.session_timeout_s,
        broker_max_poll_interval=600.0,
        broker_commit_interval=1.0,
        stream_wait_empty=True,
        stream_recovery_delay=0.0,
        stream_buffer_maxsize=512,
        table_standby_replicas=0,
        topic_allow_declare=False,
        topic_disable_leader=True,
        topic_partitions=partitions,
        web_enabled=False,
        Table=Table,
    )
    app.settings = settings
    app.steps = Steps(app_id, settings)
    seen_events = app.Table(
        topics.DEDUP_INGESTION,
        changelog_topic=_raw(app, settings.named(topics.DEDUP_INGESTION), acks=False),
    )
    app.steps.crash_note = lambda at: (
        topics.DEDUP_INGESTION,
        dedup.CRASH,
        dedup.crash_note(seen_events.partition(at.partition), at.offset),
    )

    @app.agent(_raw(app, settings.named(topics.INGESTION)), concurrency=1)
    async def unique(stream: Any) -> None:
        """ingestion -> ingestion.unique, each event once; the rest becomes an outcome or a dead letter."""
        stream = stream.noack()
        async for event in stream.events():
            with app.steps.of(event, stream.ack) as step:
                seen = seen_events.partition(step.at.partition)
                if not dedup.fenced(seen, step.at.offset):
                    metrics.STEPS.labels(topics.INGESTION, _unique(step, seen, partitions)).inc()
                    dedup.advance_fence(seen, step.at.offset)
            await app.steps.room()

    @app.timer(SWEEP_S)
    async def forget_expired() -> None:
        now_ms = time.time_ns() // 1_000_000
        for partition in list(seen_events.data.partitions):
            view = seen_events.partition(partition)
            for key in [key for key, value in view.items() if dedup.expired(value, now_ms)]:
                view.forget(key)

    return app


def _raw(app: App, name: str, *, acks: bool = True) -> Any:
    # Raw, both of them: Faust acknowledges and forgets what its own codecs cannot decode.
    return app.topic(name, key_serializer="raw", value_serializer="raw", internal=not acks, acks=acks)


def _unique(step: Step, seen: dedup.Seen, partitions: int) -> str:
    """Decide one message of `ingestion`; return what was decided."""
    message = step.event.message
    key, value, headers = message.key, message.value, message.headers
    try:
        if (size := size_of(key, value, headers)) > topics.MAX_FORWARDED_BYTES - _ROOM_FOR_HEADERS:
            raise Undecodable("message_too_large", f"{size} bytes when decompressed; only the first are kept")
        envelope = read(headers, value, step.at)
        tenant_id = _tenant(key, step.at.partition, partitions)
        if envelope.type not in INGESTION_TYPES:
            raise Undecodable("unknown_type", f"{envelope.type} is not a type of topic {step.at.topic}")
        codec.check_framing(envelope.type, value)
        if dedup.crashes(seen, step.at.offset) >= dedup.CRASHES:
            raise Undecodable("processing_error", f"ended the process {dedup.CRASHES} times")
        return _decided(step, seen, envelope, tenant_id)
    except Undecodable as exc:
        _dead_letter(step, key, value, headers, exc)
        return "dead_letter"


def _decided(step: Step, seen: dedup.Seen, envelope: Envelope, tenant_id: str) -> str:
    """Send on what is new of a message that can be read, and say what became of the rest. Raises Undecodable."""
    message, tenant_key = step.event.message, topics.partition_key(tenant_id)
    if envelope.request is None:
        decision, first = dedup.decide(seen, dedup.key_of(tenant_key, envelope.event_id), envelope)
        known: dedup.Lines = []
    else:
        key = dedup.request_key(tenant_key, envelope)
        known = dedup.lines_known(seen, key)
        refusal = dedup.refused_by_upload(seen, tenant_key, envelope)
        if refusal is not None and not dedup.covers(known, envelope.request):
            _outcome(step, tenant_id, envelope, "rejected", refusal, f"chunk {envelope.request.chunk} of its upload")
            return refusal
        decision, first = dedup.decide_part(seen, key, envelope)
    match decision:
        case dedup.Decision.NEW:
            dedup.follow_upload(seen, tenant_key, envelope)
            step.send(topics.INGESTION_UNIQUE, message.key, message.value, forwarded(message.headers, envelope))
        case dedup.Decision.PARTLY_NEW:
            _send_unknown(step, envelope, known)
        case dedup.Decision.DUPLICATE | dedup.Decision.CONFLICT:
            same = "same content" if decision is dedup.Decision.DUPLICATE else "other content"
            detail = f"same id as offset {first.offset}, {same}"
            _outcome(step, tenant_id, envelope, str(decision), str(decision), detail, first.offset)
    return str(decision)


def _send_unknown(step: Step, envelope: Envelope, known: dedup.Lines) -> None:
    """Send on the rows whose lines have not come yet: an earlier try of the request was split elsewhere."""
    message = step.event.message
    batch = codec.decode(envelope.type, message.value)
    refused = envelope.type == ROWS_REJECTED
    name = "rejected" if refused else "rows"
    rows = batch[name]
    batch[name] = [row for row in rows if not any(begin <= row["line"] <= end for begin, end in known)]
    left = 0 if refused else len(batch[name])
    trimmed = 0 if refused else len(rows) - left
    headers = forwarded(message.headers, envelope, rows=left, trimmed=trimmed)
    step.send(topics.INGESTION_UNIQUE, message.key, codec.encode(envelope.type, batch), headers)


@lru_cache(maxsize=10_000)
def _tenant(key: bytes | None, partition: int, partitions: int) -> str:
    """The tenant that a key names; raises Undecodable when it lies where another hash put it."""
    if not key:
        raise Undecodable("no_key", "the key of a message is its tenant's id")
    try:
        tenant_id = key.decode()
    except UnicodeDecodeError as exc:
        raise Undecodable("bad_key", "the key is not UTF-8") from exc
    if len(tenant_id) > 100 or not tenant_id.isprintable():
        raise Undecodable("bad_key", "a tenant id has 1 to 100 printable characters")
    expected = topics.partition_of(key, partitions)
    if partition != expected:
        raise Undecodable(
            "wrong_partition",
            f"key {tenant_id!r} belongs on partition {expected}; set partitioner=murmur2_random in librdkafka",
        )
    return tenant_id


def _outcome(
    step: Step,
    tenant_id: str,
    envelope: Envelope,
    kind: str,
    code: str,
    detail: str,
    original: int | None = None,
) -> None:
    src, request = envelope.src, envelope.request
    rows = codec.count_rows(envelope.type, step.event.message.value, envelope.rows)
    record = {
        "tenant_id": tenant_id,
        "event_id": envelope.event_id,
        "type": envelope.type,
        "kind": kind,
        "rows": rows,
        "code": code,
        "detail": detail,
        "topic": src.topic,
        "partition": src.partition,
        "offset": src.offset,
        "time_ms": src.time_ms,
        "accepted_ms": envelope.accepted_ms,
        "original_offset": original,
        "request_id": str(request.id) if request else None,
        "upload_id": str(request.upload) if request and request.upload else None,
        "chunk": request.chunk if request and request.upload else None,
    }
    value = codec.encode("tillstream.outcome.v1", record)
    headers = headers_of(
        event_id=f"{src.topic}/{src.partition}/{src.offset}",
        type="tillstream.outcome.v1",
        source="streams",
        accepted_ms=envelope.accepted_ms,
        rows=rows,
        value=value,
        traceparent=envelope.traceparent,
        subject=envelope.event_id,
    )
    step.send(topics.OUTCOMES, topics.partition_key(tenant_id), value, headers)


def _dead_letter(step: Step, key: bytes | None, value: bytes | None, headers: Headers | None, why: Undecodable) -> None:
    """The original bytes, and an outcome so that the ledger accounts for them."""
    at = step.at
    metrics.DEAD_LETTERED.labels(why.code).inc()
    try:
        envelope = read(headers, value, at)
    except Undecodable:
        envelope = Envelope(at.event_id(), "unknown", "unknown", at.time_ms, 0, b"", at)
    _outcome(step, tenant_text(key), envelope, "rejected", why.code, why.detail)
    if why.code == "message_too_large":
        key, value, headers = (key or b"")[:1_000], (value or b"")[:_KEPT_OF_TOO_LARGE], None
    step.send(topics.DEAD_LETTERS, key, value, dead_letter_headers(headers, why, "dedup", at))
