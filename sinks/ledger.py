"""The ledger: a line an accepted message, and its rows that were refused."""

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb

from schemas import codec, stock
from schemas.corrections import number_of
from schemas.envelope import Envelope
from schemas.movements import pointer, sent
from schemas.price_events import asked
from schemas.prices import HELD_PRICE_DECISION, Status
from sinks.batch import Batch, Message, RowError
from sinks.records import storable
from sinks.sql import statement

Db = psycopg.Connection[Any]
Line = tuple[Any, ...]

_BELOW_ZERO: Final = {"name": "non_positive", "reason": "a price below zero is never in force"}
"""Why a price is rejected by a tenant that ignores such findings."""

_HASH_BYTES: Final = 16


def write(db: Db, batch: Batch, fresh: list[Message]) -> None:
    """Add the lines of a batch: of these messages, of what streams did not send on, of what they folded and judged."""
    lines = [
        *map(_line, fresh),
        *map(_outcome_line, batch.outcomes),
        *map(_folded_line, batch.folded),
        *map(_judged_line, batch.judged),
    ]
    if lines:
        db.execute(statement("insert_ledger"), [list(column) for column in zip(*lines, strict=True)])
    errors = [_error(m, error) for m in fresh if not m.duplicate for error in (*m.invalid, *m.errors)]
    errors += [error for outcome in batch.folded for error in _rejected_movements(outcome)]
    errors += [error for batch_ in batch.judged for error in _rejected_prices(batch_)]
    if errors:
        db.execute(statement("insert_row_errors"), [list(column) for column in zip(*errors, strict=True)])


def counts(message: Message) -> tuple[str, int, int, int, int, int]:
    """What became of a message: outcome, then its rows, and those applied, superseded, duplicate and rejected."""
    rows = message.count + message.envelope.trimmed
    if message.refused is not None:
        return "rejected", rows, 0, 0, message.envelope.trimmed, message.count
    if message.duplicate:
        return "duplicate", rows, 0, 0, rows, 0
    # What a gateway refused was never accepted: such a message has no rows.
    rejected = len(message.errors) + (len(message.invalid) if message.count else 0)
    superseded = message.count - message.applied - rejected
    return "applied", rows, message.applied, superseded, message.envelope.trimmed, rejected


def folded_counts(outcome: codec.Record) -> tuple[int, int, int, int, int]:
    """Movements of a StockOutcome, and those applied, superseded, duplicate and rejected: each counts for itself."""
    counted = Counter([one["outcome"] for one in outcome["movements"]])
    applied, superseded, duplicate, rejected = (counted[name] for name in stock.OUTCOMES)
    return len(outcome["movements"]), applied, superseded, duplicate, rejected


def judged_counts(verdicts: codec.Record) -> tuple[int, int, int, int, int]:
    """As `folded_counts`, of a PriceVerdictBatch.

    A price that is held was taken: what becomes of it is for the decision, whose row counts for itself. A decision is
    applied when it is carried out, whatever it says; rows that came before are left out of the batch and counted there.
    """
    statuses = Counter([row["status"] for row in verdicts["rows"]])
    superseded, rejected, trimmed = statuses[Status.SUPERSEDED], statuses[Status.REJECTED], verdicts["trimmed"]
    if verdicts["type"] == HELD_PRICE_DECISION:
        rejected = 0
    rows = len(verdicts["rows"])
    return rows + trimmed, rows - superseded - rejected, superseded, trimmed, rejected


def _line(message: Message) -> Line:
    envelope, src = message.envelope, message.envelope.src
    outcome, rows, applied, superseded, duplicate, rejected = counts(message)
    code, detail = (message.refused.code, message.refused.detail) if message.refused else (None, None)
    return (
        message.tenant_id, src.topic, src.partition, src.offset, envelope.event_id, envelope.type, outcome,
        rows, applied, superseded, duplicate, 0, rejected, code, detail, envelope.accepted_ms, src.time_ms,
        *_request(envelope),
    )  # fmt: skip


def _request(envelope: Envelope) -> Line:
    request = envelope.request
    if request is None:
        return (None,) * 8
    chunk = None if request.upload is None else request.chunk
    body_hash = envelope.content_hash[:_HASH_BYTES]
    said = (request.id, body_hash, request.first, request.last, request.total, request.upload, chunk)
    return *said, number_of(envelope.event_id, request.upload)


def _outcome_line(outcome: codec.Record) -> Line:
    rows, kind = outcome["rows"], outcome["kind"]
    return (
        outcome["tenant_id"], outcome["topic"], outcome["partition"], outcome["offset"], outcome["event_id"],
        outcome["type"], kind, rows, 0, 0, rows * (kind == "duplicate"), rows * (kind == "conflict"),
        rows * (kind == "rejected"), outcome["code"], outcome["detail"], outcome["accepted_ms"], outcome["time_ms"],
        _uuid(outcome["request_id"]), None, None, None, None, _uuid(outcome["upload_id"]), outcome["chunk"],
        number_of(outcome["event_id"], outcome["upload_id"]),
    )  # fmt: skip


def _folded_line(outcome: codec.Record) -> Line:
    rows, applied, superseded, duplicate, rejected = folded_counts(outcome)
    return (
        outcome["tenant_id"], outcome["topic"], outcome["partition"], outcome["offset"], outcome["event_id"],
        outcome["type"], "applied", rows, applied, superseded, duplicate, 0, rejected, None, None,
        outcome["accepted_ms"], outcome["time_ms"], _uuid(outcome["request_id"]), *(None,) * 7,
    )  # fmt: skip


def _judged_line(verdicts: codec.Record) -> Line:
    rows, applied, superseded, duplicate, rejected = judged_counts(verdicts)
    return (
        verdicts["tenant_id"], verdicts["topic"], verdicts["partition"], verdicts["offset"], verdicts["event_id"],
        verdicts["type"], "applied", rows, applied, superseded, duplicate, 0, rejected, None, None,
        verdicts["accepted_ms"], verdicts["time_ms"], _uuid(verdicts["request_id"]), verdicts["body_hash"],
        verdicts["first_line"], verdicts["last_line"], verdicts["total_lines"], None, None, None,
    )  # fmt: skip


def _rejected_prices(verdicts: codec.Record) -> Iterator[Line]:
    if verdicts["type"] == HELD_PRICE_DECISION:
        return
    at = (verdicts["tenant_id"], verdicts["topic"], verdicts["partition"], verdicts["offset"])
    for index, row in enumerate(verdicts["rows"]):
        if row["status"] == Status.REJECTED:
            found = row["findings"] or [_BELOW_ZERO]
            errors = [{"pointer": "", "code": one["name"], "detail": one["reason"]} for one in found]
            yield (
                *at, index, row["line"], found[0]["name"], found[0]["reason"], storable(row["product_id"]), "sink", "",
                Jsonb(errors), storable(asked(row)),
            )  # fmt: skip


def _rejected_movements(outcome: codec.Record) -> Iterator[Line]:
    at = (outcome["tenant_id"], outcome["topic"], outcome["partition"], outcome["offset"])
    for index, one in enumerate(outcome["movements"]):
        if one["outcome"] == "rejected":
            code, movement = one["code"], one["movement"]
            yield (
                *at, index, movement["line"], code, stock.reason(one), storable(movement["product_id"]), "sink",
                pointer(code), None, storable(sent(movement)),
            )  # fmt: skip


def _uuid(text: str | None) -> UUID | None:
    return None if text is None else UUID(text)


def _error(message: Message, error: RowError) -> Line:
    src = message.envelope.src
    errors = [{name: storable(text) for name, text in one.items()} for one in error.errors]
    stage = "sink" if message.count else "gateway"
    return (
        message.tenant_id, src.topic, src.partition, src.offset, error.row_index, error.line, storable(error.code),
        storable(error.detail), storable(error.natural_id), stage, storable(error.pointer),
        Jsonb(errors) if errors else None,
        storable(error.row),
    )  # fmt: skip
