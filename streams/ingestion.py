"""The dedup agent: ingestion -> ingestion.unique."""

from typing import Any, Final

from schemas import codec, metrics, topics
from schemas.envelope import INGESTION_TYPES, ROWS_REJECTED, UPLOAD_COMPLETED, Envelope, forwarded
from schemas.errors import Undecodable
from streams import dedup
from streams.faust_app import App, changelog, source
from streams.outputs import dead_letter, envelope_of, outcome, repeated
from streams.steps import Step

_MOST_BYTES: Final = topics.MAX_FORWARDED_BYTES - 10_000
"""Of a message that can be sent on with our own headers."""


def install(app: App, partitions: int) -> None:
    """Add the agent and its table to the app."""
    seen_events = app.Table(
        topics.DEDUP_INGESTION,
        changelog_topic=changelog(app, topics.DEDUP_INGESTION),
        fences=topics.INGESTION,
    )
    app.steps.crash_notes[app.settings.named(topics.INGESTION)] = lambda at: (
        topics.DEDUP_INGESTION,
        dedup.CRASH,
        dedup.crash_note(seen_events.partition(at.partition), at.offset),
    )
    app.forgetful.append(seen_events)

    @app.agent(source(app, topics.INGESTION), concurrency=1)
    async def unique(stream: Any) -> None:
        """ingestion -> ingestion.unique, each event once; the rest becomes an outcome or a dead letter."""
        stream = stream.noack()
        async for event in stream.events():
            await app.schema_known(event.message.value)
            await app.nothing_left_out(event.message, seen_events)
            with app.steps.of(event, stream.ack) as step:
                seen = seen_events.of(step)
                if not dedup.fenced(seen, step.at.offset):
                    step.decision = _unique(step, seen, partitions)
                    metrics.STEPS.labels(topics.INGESTION, step.decision).inc()
                    dedup.advance_fence(seen, step.at.offset, app.sources.ids[step.at.topic], partitions)
            await app.steps.room()


def _unique(step: Step, seen: dedup.Seen, partitions: int) -> str:
    """Decide one message of `ingestion`; return what was decided."""
    try:
        envelope, tenant_id = envelope_of(step, INGESTION_TYPES, partitions, _MOST_BYTES)
        dedup.refuse_after_crashes(seen, step.at.offset, topics.partition_key(tenant_id))
        return _decided(step, seen, envelope, tenant_id)
    except Undecodable as exc:
        dead_letter(step, exc, "dedup")
        return "dead_letter"


def _decided(step: Step, seen: dedup.Seen, envelope: Envelope, tenant_id: str) -> str:
    """Send on what is new of a message that can be read, and say what became of the rest. Raises Undecodable."""
    message, tenant_key = step.event.message, topics.partition_key(tenant_id)
    if envelope.redrive is not None and dedup.cancelled(seen, tenant_key, envelope):
        outcome(step, tenant_id, envelope, "rejected", "upload_cancelled", "its upload was cancelled")
        return "upload_cancelled"
    if envelope.request is None or not dedup.known_by_lines(envelope):
        decision, first = dedup.decide(seen, dedup.key_of(tenant_key, envelope.event_id), envelope)
        known: dedup.Lines = []
    else:
        key = dedup.request_key(tenant_key, envelope)
        known = dedup.lines_known(seen, key)
        refusal = dedup.refused_by_upload(seen, tenant_key, envelope)
        if refusal is not None and not dedup.covers(known, envelope.request):
            chunk = envelope.request.chunk
            what = f"completed with {chunk} chunks" if envelope.type == UPLOAD_COMPLETED else f"chunk {chunk}"
            outcome(step, tenant_id, envelope, "rejected", refusal, f"{what} of its upload")
            return refusal
        decision, first = dedup.decide_part(seen, key, envelope)
    match decision:
        case dedup.Decision.NEW:
            dedup.follow_upload(seen, tenant_key, envelope)
            step.send(topics.INGESTION_UNIQUE, message.key, message.value, forwarded(message.headers, envelope))
        case dedup.Decision.PARTLY_NEW:
            _send_unknown(step, envelope, known)
        case dedup.Decision.DUPLICATE | dedup.Decision.CONFLICT:
            repeated(step, tenant_id, envelope, decision, first)
    return str(decision)


def _send_unknown(step: Step, envelope: Envelope, known: dedup.Lines) -> None:
    """Send on the rows whose lines have not come yet: an earlier try of the request was split elsewhere."""
    message = step.event.message
    batch = codec.decode(envelope.type, message.value)
    refused = envelope.type == ROWS_REJECTED
    name = "rejected" if refused else "rows"
    trimmed = dedup.trim(batch, name, known)
    left, trimmed = (0, 0) if refused else (len(batch[name]), trimmed)
    headers = forwarded(message.headers, envelope, rows=left, trimmed=trimmed)
    step.send(topics.INGESTION_UNIQUE, message.key, codec.encode(envelope.type, batch), headers)
