"""The price agent: prices -> prices.current and prices.verdicts."""

from collections import Counter
from typing import Any, Final

from schemas import codec, metrics, topics
from schemas.envelope import Envelope
from schemas.errors import Rejected, Undecodable
from schemas.prices import PRICE_TYPES, PRICE_VERDICTS
from streams import dedup
from streams.faust_app import App, changelog, source
from streams.outputs import dead_letter, envelope_of, outcome, repeated, send_outcome
from streams.price_messages import take
from streams.steps import Step
from streams.tables import PartitionView

_MOST_BYTES: Final = topics.MAX_FORWARDED_BYTES - 1_500_000
"""Of a message whose verdicts, with 1,500 bytes more a row, can still be sent."""


def install(app: App, partitions: int) -> None:
    """Add the agent and its tables to the app."""
    current = app.Table(
        topics.PRICES_CURRENT, changelog_topic=changelog(app, topics.PRICES_CURRENT), fences=topics.PRICES
    )
    seen_events = app.Table(topics.DEDUP_PRICES, changelog_topic=changelog(app, topics.DEDUP_PRICES))
    app.steps.crash_notes[app.settings.named(topics.PRICES)] = lambda at: (
        topics.PRICES_CURRENT,
        dedup.CRASH,
        dedup.crash_note(current.partition(at.partition), at.offset),
    )
    app.forgetful.append(seen_events)

    @app.agent(source(app, topics.PRICES), concurrency=1)
    async def verdicts(stream: Any) -> None:
        """prices -> prices.verdicts, each change judged once; the prices in force are a table."""
        stream = stream.noack()
        async for event in stream.events():
            await app.schema_known(event.message.value)
            await app.nothing_left_out(event.message, current)
            with app.steps.of(event, stream.ack) as step:
                prices = current.of(step)
                # As with stock, the fence stays with what is kept for ever.
                if not dedup.fenced(prices, step.at.offset):
                    step.decision = _judged(step, prices, seen_events.of(step), partitions)
                    metrics.STEPS.labels(topics.PRICES, step.decision).inc()
                    dedup.advance_fence(prices, step.at.offset, app.sources.ids[step.at.topic], partitions)
            await app.steps.room()


def _judged(step: Step, prices: PartitionView, seen: PartitionView, partitions: int) -> str:
    """Decide one message of `prices`; return what was decided."""
    try:
        envelope, tenant_id = envelope_of(step, PRICE_TYPES, partitions, _MOST_BYTES)
        dedup.refuse_after_crashes(prices, step.at.offset, topics.partition_key(tenant_id))
        record = _read(envelope, tenant_id, step.event.message.value)
        tenant_key = topics.partition_key(tenant_id)
        decision, first, known = _decided(seen, tenant_key, envelope)
    except Undecodable as exc:
        dead_letter(step, exc, "prices")
        return "dead_letter"
    match decision:
        case dedup.Decision.NEW | dedup.Decision.PARTLY_NEW:
            trimmed = dedup.trim(record, "rows", known)
            try:
                answer = take(prices, seen, tenant_key, envelope, record) | {"trimmed": trimmed}
            except Rejected as exc:
                outcome(step, tenant_id, envelope, "rejected", exc.code, exc.detail)
                return exc.code
            _counted(answer)
            value = codec.encode(PRICE_VERDICTS, answer)
            send_outcome(step, tenant_id, envelope, PRICE_VERDICTS, len(answer["rows"]), value, topics.PRICES_VERDICTS)
        case dedup.Decision.DUPLICATE | dedup.Decision.CONFLICT:
            repeated(step, tenant_id, envelope, decision, first)
    return str(decision)


def _counted(verdicts: codec.Record) -> None:
    rows = verdicts["rows"]
    if verdicts["breaker"]:
        metrics.PRICE_BREAKER.inc()
    for status, count in Counter(row["status"] for row in rows).items():
        metrics.PRICES_JUDGED.labels(status).inc(count)
    for row in rows:
        for finding in row["findings"]:
            metrics.PRICE_FINDINGS.labels(finding["name"]).inc()


def _decided(
    seen: PartitionView, tenant_key: bytes, envelope: Envelope
) -> tuple[dedup.Decision, dedup.Entry, dedup.Lines]:
    """What a message is, the first with its id, and the lines of its request that had come before."""
    if not dedup.known_by_lines(envelope):
        return *dedup.decide(seen, dedup.key_of(tenant_key, envelope.event_id), envelope), []
    key = dedup.request_key(tenant_key, envelope)
    known = dedup.lines_known(seen, key)
    return *dedup.decide_part(seen, key, envelope), known


def _read(envelope: Envelope, tenant_id: str, value: bytes) -> codec.Record:
    """The rows or the policy in a message. Raises Undecodable."""
    if "/" in tenant_id:
        raise Undecodable("bad_key", "a tenant id holds no slash")
    record = codec.decode(envelope.type, value)
    if record["tenant_id"] != tenant_id:
        raise Undecodable("foreign_tenant", f"key {tenant_id!r}, value {record['tenant_id']!r}")
    if len(record.get("rows", ())) > topics.MAX_ROWS:
        raise Undecodable("too_many_rows", f"a batch has at most {topics.MAX_ROWS:,} rows")
    return record
