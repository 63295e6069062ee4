"""The ledger: a line an accepted message, and its rows that were refused."""

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb

from schemas import codec, stock
from schemas.envelope import Envelope
from schemas.movements import pointer, sent
from sinks.batch import Message, RowError
from sinks.sql import statement

Db = psycopg.Connection[Any]
Line = tuple[Any, ...]

_HASH_BYTES: Final = 16
_KEPT: Final = 10_000
"""Characters kept of a refused row."""


def write(db: Db, messages: list[Message], outcomes: list[codec.Record], folded: list[codec.Record]) -> None:
    """Add the lines of these messages, of what streams did not send on, and of stock that they folded."""
    lines = [
        *map(_line, messages),
        *map(_outcome_line, outcomes),
        *map(_folded_line, folded),
    ]
    if lines:
        db.execute(statement("insert_ledger"), [list(column) for column in zip(*lines, strict=True)])
    errors = [_error(m, error) for m in messages if not m.duplicate for error in (*m.invalid, *m.errors)]
    errors += [error for outcome in folded for error in _rejected_movements(outcome)]
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
        return (None,) * 7
    chunk = None if request.upload is None else request.chunk
    body_hash = envelope.content_hash[:_HASH_BYTES]
    return request.id, body_hash, request.first, request.last, request.total, request.upload, chunk


def _outcome_line(outcome: codec.Record) -> Line:
    rows, kind = outcome["rows"], outcome["kind"]
    return (
        outcome["tenant_id"], outcome["topic"], outcome["partition"], outcome["offset"], outcome["event_id"],
        outcome["type"], kind, rows, 0, 0, rows * (kind == "duplicate"), rows * (kind == "conflict"),
        rows * (kind == "rejected"), outcome["code"], outcome["detail"], outcome["accepted_ms"], outcome["time_ms"],
        _uuid(outcome["request_id"]), None, None, None, None, _uuid(outcome["upload_id"]), outcome["chunk"],
    )  # fmt: skip


def _folded_line(outcome: codec.Record) -> Line:
    rows, applied, superseded, duplicate, rejected = folded_counts(outcome)
    return (
        outcome["tenant_id"], outcome["topic"], outcome["partition"], outcome["offset"], outcome["event_id"],
        outcome["type"], "applied", rows, applied, superseded, duplicate, 0, rejected, None, None,
        outcome["accepted_ms"], outcome["time_ms"], _uuid(outcome["request_id"]), *(None,) * 6,
    )  # fmt: skip


def _rejected_movements(outcome: codec.Record) -> Iterator[Line]:
    at = (outcome["tenant_id"], outcome["topic"], outcome["partition"], outcome["offset"])
    for index, one in enumerate(outcome["movements"]):
        if one["outcome"] == "rejected":
            code, movement = one["code"], one["movement"]
            yield (
                *at, index, movement["line"], code, stock.reason(one), _storable(movement["product_id"]), "sink",
                pointer(code), None, _storable(sent(movement)),
            )  # fmt: skip


def _uuid(text: str | None) -> UUID | None:
    return None if text is None else UUID(text)


def _error(message: Message, error: RowError) -> Line:
    src = message.envelope.src
    errors = [{name: _storable(text) for name, text in one.items()} for one in error.errors]
    stage = "sink" if message.count else "gateway"
    return (
        message.tenant_id, src.topic, src.partition, src.offset, error.row_index, error.line, _storable(error.code),
        _storable(error.detail), _storable(error.natural_id), stage, _storable(error.pointer),
        Jsonb(errors) if errors else None,
        _storable(error.row),
    )  # fmt: skip


def _storable(text: str | None) -> str | None:
    """Text that PostgreSQL can hold, whatever a direct producer put into it."""
    return text and text[:_KEPT].replace("\x00", "�").encode(errors="replace").decode()
