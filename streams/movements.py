"""The stock agent: stock -> stock.levels and outcomes."""

from typing import Any, Final

from schemas import codec, metrics, stock, topics
from schemas.envelope import Envelope
from schemas.errors import Undecodable
from schemas.stock import STOCK_TYPES, Level, accepted_at
from streams import dedup
from streams.faust_app import App, changelog, source
from streams.outputs import dead_letter, envelope_of, repeated, send_outcome
from streams.steps import Step
from streams.stock import Source, fold_batch
from streams.tables import Codec, PartitionView

_MOST_BYTES: Final = topics.MAX_FORWARDED_BYTES - 500_000
"""Of a message whose outcome, with 100 bytes more a movement, can still be sent."""
_POLICY: Final = b"\x00policy/"


def _encode(key: bytes, value: Level | bytes) -> bytes:
    return value if isinstance(value, bytes) else stock.encode_level(key, value)


def _decode(key: bytes, value: bytes) -> Level | bytes:
    """A level; the table's own notes, under keys no product can have, stay bytes."""
    return value if key.startswith(b"\x00") else stock.decode_level(value)


def install(app: App, partitions: int) -> None:
    """Add the agent and its tables to the app."""
    all_levels = app.Table(
        topics.STOCK_LEVELS,
        changelog_topic=changelog(app, topics.STOCK_LEVELS),
        fences=topics.STOCK,
        codec=Codec(_encode, _decode),
    )
    seen_events = app.Table(topics.DEDUP_STOCK, changelog_topic=changelog(app, topics.DEDUP_STOCK))
    app.steps.crash_notes[app.settings.named(topics.STOCK)] = lambda at: (
        topics.STOCK_LEVELS,
        dedup.CRASH,
        dedup.crash_note(all_levels.partition(at.partition), at.offset),
    )
    app.forgetful.append(seen_events)

    @app.agent(source(app, topics.STOCK), concurrency=1)
    async def movements(stream: Any) -> None:
        """stock -> stock.levels, each movement folded once, and an outcome a message."""
        stream = stream.noack()
        async for event in stream.events():
            await app.schema_known(event.message.value)
            await app.nothing_left_out(event.message, all_levels)
            with app.steps.of(event, stream.ack) as step:
                levels = all_levels.of(step)
                # The fence stays with the levels, which are kept for ever: what it covers is in them.
                if not dedup.fenced(levels, step.at.offset):
                    step.decision = _folded(step, levels, seen_events.of(step), partitions)
                    metrics.STEPS.labels(topics.STOCK, step.decision).inc()
                    dedup.advance_fence(levels, step.at.offset, app.sources.ids[step.at.topic], partitions)
            await app.steps.room()


def _folded(step: Step, levels: PartitionView, seen: PartitionView, partitions: int) -> str:
    """Decide one message of `stock`; return what was decided."""
    try:
        envelope, tenant_id = envelope_of(step, STOCK_TYPES, partitions, _MOST_BYTES)
        dedup.refuse_after_crashes(levels, step.at.offset, topics.partition_key(tenant_id))
        record = _read(envelope, tenant_id, step.event.message.value)
    except Undecodable as exc:
        dead_letter(step, exc, "stock")
        return "dead_letter"
    tenant_key = topics.partition_key(tenant_id)
    # A body of movements is one message, so its request is known by its id alone.
    by_lines = dedup.known_by_lines(envelope)
    key = dedup.request_key(tenant_key, envelope) if by_lines else dedup.key_of(tenant_key, envelope.event_id)
    decision, first = dedup.decide(seen, key, envelope)
    match decision:
        case dedup.Decision.NEW if envelope.type == stock.POLICY:
            levels[_POLICY + tenant_key] = codec.encode(stock.POLICY, record)
            _told(step, tenant_id, envelope, [])
        case dedup.Decision.NEW:
            policy = levels.get(_POLICY + tenant_key)
            oversell = policy is not None and codec.decode(stock.POLICY, policy)["oversell"]
            accepted = accepted_at(envelope.accepted_ms, envelope.first_ms)
            first_at = envelope.first_ms * 1000 if envelope.redrive else None
            appended = step.at.time_ms * 1000
            message = Source(tenant_key, envelope.event_id, step.at.offset, accepted, appended, first_at)
            _told(step, tenant_id, envelope, fold_batch(levels, record["rows"], message, oversell))
        case dedup.Decision.DUPLICATE | dedup.Decision.CONFLICT:
            repeated(step, tenant_id, envelope, decision, first)
    return str(decision)


def _read(envelope: Envelope, tenant_id: str, value: bytes) -> codec.Record:
    """The movements or the policy in a message. Raises Undecodable."""
    if "/" in tenant_id:
        raise Undecodable("bad_key", "a tenant id holds no slash")
    read = codec.decode_rows if envelope.type == stock.MOVEMENTS else codec.decode
    record = read(envelope.type, value)
    if record["tenant_id"] != tenant_id:
        raise Undecodable("foreign_tenant", f"key {tenant_id!r}, value {record['tenant_id']!r}")
    if len(record.get("rows", ())) > topics.MAX_MOVEMENTS:
        raise Undecodable("too_many_rows", f"a batch has at most {topics.MAX_MOVEMENTS:,} movements")
    return record


def _told(step: Step, tenant_id: str, envelope: Envelope, movements: list[bytes]) -> None:
    src, request = envelope.src, envelope.request
    record = {
        "tenant_id": tenant_id,
        "event_id": envelope.event_id,
        "type": envelope.type,
        "topic": src.topic,
        "partition": src.partition,
        "offset": src.offset,
        "time_ms": src.time_ms,
        "accepted_ms": envelope.accepted_ms,
        "request_id": str(request.id) if request else None,
    }
    value = codec.encode_around(stock.OUTCOME, record, movements)
    send_outcome(step, tenant_id, envelope, stock.OUTCOME, len(movements), value)
