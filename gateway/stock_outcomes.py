"""?wait=5s of POST /stock-events: the answer, what became of each movement, and a summary, as lines.

What streams decide comes through `gateway.tail`. Of a request that came before they say only that; what became of it
the first time is then read from its products' history.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from gateway.database import Database
from gateway.publishing import Answer
from gateway.sql import statement
from gateway.tail import Seen, Waiter
from schemas import codec, stock
from schemas.errors import Unavailable
from schemas.stock import MovementOutcome

_OUTCOME: Final = "tillstream.outcome.v1"
_LOOK_S: Final = 0.1
_LINES_AT_ONCE: Final = 200


class Accepted(Answer, tag_field="type", tag="accepted"):
    """The first line: the answer as it is without `wait`."""


class Moved(Struct, tag_field="type", tag="movement"):
    """What became of a movement."""

    line: Annotated[int, Meta(description="Of the body, from 1.")]
    product_id: str
    outcome: MovementOutcome
    code: Annotated[str | None, Meta(description="Why it was rejected.")]
    detail: str
    quantity: Annotated[int, Meta(description="The product's level after it; of a duplicate, after the first.")]
    version: Annotated[int, Meta(description="The level's version, likewise.")]


class Summary(Struct, tag_field="type", tag="summary"):
    """The last line. `pending`: not known in time, ask GET …/events. `duplicate`: lines tell of the first time."""

    event_id: str
    status: Literal["applied", "duplicate", "conflict", "rejected", "pending"]
    detail: str = ""
    applied: int = 0
    superseded: int = 0
    duplicate: int = 0
    rejected: int = 0


Line = Accepted | Moved | Summary


class Before(Struct):
    """Where to look for what a message did: the tenant, the offset in its partition, its products and movements."""

    database: Database
    tenant_id: str
    products: list[str]
    movements: int
    offset: int = -1


async def followed(waiter: Waiter, answer: Answer, before: Before, seconds: float) -> AsyncIterator[bytes]:
    """The lines of a message that was published; `before` is for a message that turns out to have come before."""
    until = time.monotonic() + seconds
    [event_id] = answer.event_ids
    yield _accepted(answer)
    try:
        async with asyncio.timeout(seconds):
            seen = await waiter.next()
    except TimeoutError:
        detail = f"not decided within {seconds:.0f} s; ask GET …/events/{event_id}"
        yield _encode(Summary(event_id, "pending", detail))
        return
    if seen.type == stock.OUTCOME:
        for lines in await asyncio.to_thread(_folded, seen, event_id):
            yield lines
        return
    outcome = codec.decode(_OUTCOME, seen.value)
    lines, moved = b"", Summary(event_id, outcome["kind"], outcome["detail"])
    if outcome["kind"] == "duplicate":
        before.offset = outcome["original_offset"]
        lines, moved = await _from_history(before, moved, until)
    yield lines + _encode(moved)


async def replayed(answer: Answer, before: Before, seconds: float) -> AsyncIterator[bytes]:
    """The lines of a message that was applied already."""
    yield _accepted(answer)
    [event_id] = answer.event_ids
    lines, summary = await _from_history(before, Summary(event_id, "applied"), time.monotonic() + seconds)
    yield lines + _encode(summary)


async def _from_history(before: Before, summary: Summary, until: float) -> tuple[bytes, Summary]:
    """Lines of what the message did, with the summary counting them; no lines where PostgreSQL has them not in time."""
    while True:
        rows = await _history(before)
        if len(rows) == before.movements:
            moved = [_of_row(row) for row in rows]
            return b"".join(map(_encode, moved)), _counted(summary, moved)
        if time.monotonic() + _LOOK_S > until:
            return b"", summary
        await asyncio.sleep(_LOOK_S)


async def _history(before: Before) -> list[Any]:
    query = [before.tenant_id, before.products, before.offset]
    try:
        async with before.database.transaction(before.tenant_id) as db:
            return await (await db.execute(statement("movements_of_message"), query)).fetchall()
    except Unavailable:
        return []


def _folded(seen: Seen, event_id: str) -> list[bytes]:
    """A StockOutcome as lines, some at a time, the summary last."""
    moved = [_moved(one) for one in codec.decode(stock.OUTCOME, seen.value)["movements"]]
    lines = [*map(_encode, moved), _encode(_counted(Summary(event_id, "applied"), moved))]
    return [b"".join(lines[at : at + _LINES_AT_ONCE]) for at in range(0, len(lines), _LINES_AT_ONCE)]


def _moved(one: codec.Record) -> Moved:
    movement = one["movement"]
    return Moved(
        movement["line"], movement["product_id"], one["outcome"], one["code"], stock.reason(one), one["quantity"],
        one["version"],
    )  # fmt: skip


def _of_row(row: tuple[Any, ...]) -> Moved:
    line, product_id, outcome, code, quantity, version, kind, moved, expected = row
    movement = {
        "line": line, "product_id": product_id, "kind": kind, "quantity": moved, "expected_quantity": expected,
    }  # fmt: skip
    return _moved({"movement": movement, "outcome": outcome, "code": code, "quantity": quantity, "version": version})


def _counted(summary: Summary, moved: Iterable[Moved]) -> Summary:
    for one in moved:
        setattr(summary, one.outcome, getattr(summary, one.outcome) + 1)
    return summary


def _accepted(answer: Answer) -> bytes:
    return _encode(Accepted(**msgspec.structs.asdict(answer)))


def _encode(line: Line) -> bytes:
    return msgspec.json.encode(line) + b"\n"
