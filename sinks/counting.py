"""Tells Prometheus what a transaction of a sink has written."""

import time
from collections.abc import Iterable
from typing import Final

from schemas import codec, metrics, topics
from schemas.movements import MOVEMENT
from schemas.price_events import PRICE
from schemas.rows import ENTITIES
from sinks import ledger
from sinks.batch import Batch, Message

_NAMES: Final = ("applied", "superseded", "duplicate", "rejected")
_ENTITIES: Final = {entity.type: entity.name for entity in (*ENTITIES.values(), MOVEMENT, PRICE)}
_UNKNOWN: Final = "unknown"


def count(batch: Batch) -> None:
    """Rows by what became of them, and how long they took from acceptance."""
    now_ms = time.time_ns() // 1_000_000
    metrics.BATCH_ROWS.observe(
        sum(m.count for m in batch.messages)
        + sum(len(folded["movements"]) for folded in batch.folded)
        + sum(len(judged["rows"]) for judged in batch.judged)
    )
    for message in batch.messages:
        outcome, _, *numbers = ledger.counts(message)
        type_ = message.envelope.type if message.refused is None else ""
        tenant = _count(message.tenant_id, type_, numbers)
        if outcome == "applied":
            _fresh(topics.INGESTION, tenant, now_ms - message.envelope.accepted_ms)
    for folded in batch.folded:
        tenant = _count(folded["tenant_id"], MOVEMENT.type, ledger.folded_counts(folded)[1:])
        _fresh(topics.STOCK, tenant, now_ms - folded["accepted_ms"])
    for judged in batch.judged:
        tenant = _count(judged["tenant_id"], PRICE.type, ledger.judged_counts(judged)[1:])
        _fresh(topics.PRICES, tenant, now_ms - judged["accepted_ms"])
    for repeated in batch.outcomes:
        tenant = metrics.TOP.of(repeated["tenant_id"], repeated["rows"])
        entity = _ENTITIES.get(repeated["type"], _UNKNOWN)
        metrics.ROWS_WRITTEN.labels(entity, repeated["kind"], tenant).inc(repeated["rows"])


def outcome_of(what: Message | codec.Record | None) -> dict[str, str | int]:
    """What became of a message, of movements, of prices or of what streams did not send on, and of its rows."""
    match what:
        case None:
            return {}
        case Message():
            outcome, rows, *numbers = ledger.counts(what)
        case {"kind": outcome, "rows": rows}:
            numbers = []
        case {"movements": _}:
            outcome, (rows, *numbers) = "applied", ledger.folded_counts(what)
        case _:
            outcome, (rows, *numbers) = "applied", ledger.judged_counts(what)
    return {"outcome": outcome, "rows": rows, **dict(zip(_NAMES, numbers, strict=False))}


def _count(tenant_id: str, type_: str, numbers: Iterable[int]) -> str:
    """`numbers` are rows applied, superseded, duplicate and rejected; returns the tenant's label."""
    counted = [(name, number) for name, number in zip(_NAMES, numbers, strict=True) if number]
    tenant = metrics.TOP.of(tenant_id, sum(number for _, number in counted))
    entity = _ENTITIES.get(type_, _UNKNOWN)
    for name, number in counted:
        metrics.ROWS_WRITTEN.labels(entity, name, tenant).inc(number)
    return tenant


def _fresh(topic: str, tenant: str, took_ms: int) -> None:
    metrics.FRESHNESS_SECONDS.labels(topic, tenant).observe(max(0, took_ms) / 1000)
