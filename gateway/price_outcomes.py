"""Accept: application/x-ndjson on prices: the answer, the verdict on each change as it is made, and a summary.

Verdicts come through `gateway.tail`. Of a message that came before streams say only that; what became of it the first
time is then read from its products' history.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from gateway.database import Database
from gateway.judged import Found, Verdict, verdict
from gateway.publishing import Answer
from gateway.sql import statement
from gateway.stock_outcomes import Accepted
from gateway.tail import Waiter
from schemas import codec
from schemas.errors import Unavailable
from schemas.prices import PRICE_VERDICTS

PATIENCE_S: Final = 30.0
"""How long nothing may be judged before the answer ends."""
_HISTORY_S: Final = 5.0
_LOOK_S: Final = 0.1
_LINES_AT_ONCE: Final = 200


class VerdictSummary(Struct, tag_field="type", tag="summary"):
    """The last line: rows by what became of them; of those that had come before, the first time."""

    accepted: int = 0
    anomaly: int = 0
    held: int = 0
    rejected: int = 0
    superseded: int = 0
    duplicate: Annotated[int, Meta(description="Had come before, and have no line: ask GET …/events.")] = 0
    conflict: Annotated[int, Meta(description="Contradict what came under the same Idempotency-Key.")] = 0
    pending: Annotated[int, Meta(description="Not judged in time: ask GET …/events.")] = 0
    detail: str = ""


PriceLine = Accepted | Verdict | VerdictSummary


class Published(Struct):
    """A message: its event id, how many rows it has, and the ids of the products that they are of."""

    event_id: str
    rows: int
    products: Callable[[], list[str]]


class History(Struct):
    """Where a message that came before is looked up."""

    database: Database
    tenant_id: str
    topic: str


async def followed(waiter: Waiter, answer: Answer, messages: list[Published], history: History) -> AsyncIterator[bytes]:
    """The lines of messages that were published, in the order in which they are judged."""
    yield _accepted(answer)
    awaited, summary = {message.event_id: message for message in messages}, VerdictSummary()
    while awaited:
        try:
            async with asyncio.timeout(PATIENCE_S):
                seen = await waiter.next()
        except TimeoutError:
            summary.pending = sum(message.rows for message in awaited.values())
            summary.detail = f"not judged within {PATIENCE_S:.0f} s: {', '.join(list(awaited)[:10])}"
            break
        said = codec.decode(seen.type, seen.value)
        if (message := awaited.pop(said["event_id"], None)) is None:
            continue  # its repeat, of which the first is told already
        if seen.type == PRICE_VERDICTS:
            lines = await asyncio.to_thread(_judged, said, summary)
        else:
            lines = await _not_judged(said, message, summary, history)
        for some in lines:
            yield some
    yield _encode(summary)


async def replayed(answer: Answer, messages: list[Published], history: History) -> AsyncIterator[bytes]:
    """The lines of a request all of which came before."""
    yield _accepted(answer)
    summary = VerdictSummary()
    for message in messages:
        for some in await _first_time(message, summary, history, 0):  # written with the ledger, or never
            yield some
    yield _encode(summary)


async def _not_judged(
    outcome: codec.Record, message: Published, summary: VerdictSummary, history: History
) -> list[bytes]:
    kind, summary.detail = outcome["kind"], outcome["detail"]
    if kind == "duplicate":
        return await _first_time(message, summary, history)
    _count(summary, kind, outcome["rows"])
    return []


async def _first_time(
    message: Published, summary: VerdictSummary, history: History, within: float = _HISTORY_S
) -> list[bytes]:
    """What a message did, as lines, which the summary counts; none where PostgreSQL does not have it in time."""
    until = time.monotonic() + within
    query = [history.tenant_id, message.products(), history.tenant_id, message.event_id, history.topic]
    while True:
        rows = await _history(history, query)
        if rows or time.monotonic() + _LOOK_S > until:
            told = [_of_row(row) for row in rows]
            for one in told:
                _count(summary, one.status)
            _count(summary, "duplicate", message.rows - len(told))
            return _at_once([_encode(one) for one in told])
        await asyncio.sleep(_LOOK_S)


async def _history(history: History, query: list[Any]) -> list[Any]:
    try:
        async with history.database.transaction(history.tenant_id) as db:
            return await (await db.execute(statement("price_changes_of_message"), query)).fetchall()
    except Unavailable:
        return []


def _of_row(row: tuple[Any, ...]) -> Verdict:
    said = dict(zip(Verdict.__struct_fields__, row, strict=True))
    return Verdict(**said | {"findings": msgspec.convert(said["findings"], list[Found])})


def _judged(batch: codec.Record, summary: VerdictSummary) -> list[bytes]:
    lines = []
    for row in batch["rows"]:
        _count(summary, row["status"])
        lines.append(_encode(verdict(batch, row)))
    summary.duplicate += batch["trimmed"]
    return _at_once(lines)


def _count(summary: VerdictSummary, what: str, rows: int = 1) -> None:
    setattr(summary, what, getattr(summary, what) + rows)


def _at_once(lines: list[bytes]) -> list[bytes]:
    return [b"".join(lines[at : at + _LINES_AT_ONCE]) for at in range(0, len(lines), _LINES_AT_ONCE)]


def _accepted(answer: Answer) -> bytes:
    return _encode(Accepted(**msgspec.structs.asdict(answer)))


def _encode(line: PriceLine) -> bytes:
    return msgspec.json.encode(line) + b"\n"
