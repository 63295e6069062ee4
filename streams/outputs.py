"""What every agent does alike: read the envelope of a source message, say what became of it, set it aside."""

from functools import lru_cache
from typing import Final

from schemas import codec, metrics, topics
from schemas.envelope import Envelope, dead_letter_headers, headers_of, read, tenant_text
from schemas.errors import Undecodable
from streams.dedup import Decision, Entry
from streams.steps import Step, size_of

_KEPT_OF_TOO_LARGE: Final = 1_000_000


def envelope_of(step: Step, types: frozenset[str], partitions: int, most_bytes: int) -> tuple[Envelope, str]:
    """Envelope and tenant of a message that is of one of these types and lies where it belongs. Raises Undecodable."""
    message = step.event.message
    key, value, headers = message.key, message.value, message.headers
    if (size := size_of(key, value, headers)) > most_bytes:
        raise Undecodable("message_too_large", f"{size} bytes when decompressed; only the first are kept")
    envelope = read(headers, value, step.at)
    tenant_id = _tenant(key, step.at.partition, partitions)
    if envelope.type not in types:
        raise Undecodable("unknown_type", f"{envelope.type} is not a type of topic {step.at.topic}")
    codec.check_framing(envelope.type, value)
    return envelope, tenant_id


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


def outcome(
    step: Step,
    tenant_id: str,
    envelope: Envelope,
    kind: str,
    code: str,
    detail: str,
    original: int | None = None,
) -> None:
    """Say what became of a whole message that does not go on."""
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
    send_outcome(step, tenant_id, envelope, "tillstream.outcome.v1", rows, value)


def repeated(step: Step, tenant_id: str, envelope: Envelope, decision: Decision, first: Entry) -> None:
    """Say that a message repeats the first one with its id, or contradicts it."""
    same = "same content" if decision is Decision.DUPLICATE else "other content"
    detail = f"same id as offset {first.offset}, {same}"
    outcome(step, tenant_id, envelope, str(decision), str(decision), detail, first.offset)


def send_outcome(
    step: Step,
    tenant_id: str,
    envelope: Envelope,
    type_: str,
    rows: int,
    value: bytes,
    topic: str = topics.OUTCOMES,
) -> None:
    """Send what became of a message, under headers that say which event it is about."""
    src = envelope.src
    headers = headers_of(
        event_id=f"{src.topic}/{src.partition}/{src.offset}",
        type=type_,
        source="streams",
        accepted_ms=envelope.accepted_ms,
        rows=rows,
        value=value,
        traceparent=envelope.traceparent,
        subject=envelope.event_id,
    )
    step.send(topic, topics.partition_key(tenant_id), value, headers)


def dead_letter(step: Step, why: Undecodable, in_step: str) -> None:
    """The original bytes, and an outcome so that the ledger accounts for them."""
    message, at = step.event.message, step.at
    key, value, headers = message.key, message.value, message.headers
    step.refused = why.code
    metrics.DEAD_LETTERED.labels(why.code).inc()
    try:
        envelope = read(headers, value, at)
    except Undecodable:
        envelope = Envelope(at.event_id(), "unknown", "unknown", at.time_ms, 0, b"", at)
    outcome(step, tenant_text(key), envelope, "rejected", why.code, why.detail)
    if why.code == "message_too_large":
        key, value, headers = (key or b"")[:1_000], (value or b"")[:_KEPT_OF_TOO_LARGE], None
    step.send(topics.DEAD_LETTERS, key, value, dead_letter_headers(headers, why, in_step, at))
