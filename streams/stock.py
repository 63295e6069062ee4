"""Stock: how movements change levels. Pure functions; the same log gives the same levels and outcomes, always.

A movement is looked at in this order, and the first rule that holds decides:

1. its id is among the product's last 32 applied: `duplicate`, with the result of the first;
2. product id, sign or size are impossible: `rejected`;
3. `expected_quantity` is given and the level is another: `rejected` (expected_quantity_mismatch);
4. a set that happened before the last set: `superseded`; at the same moment the later in the log wins;
5. it takes the level below zero, or further below, and the tenant does not oversell: `rejected` (insufficient_stock);
6. `applied`: the version grows by one.

A movement that is sent once more (`schemas.redrive`) is folded where it comes again, but overwrites nothing that came
since it came first: it is `superseded` when a set happened since, which counted it, and so is a set when anything
changed the level since, for what it would replace is no longer what it was.

Only what is applied changes a level, so whatever was refused may be sent again under its id.
"""

from collections.abc import Iterable, MutableMapping
from hashlib import blake2b
from typing import Final

from msgspec import Struct

from schemas import stock
from schemas.codec import Record
from schemas.compiled import RAW, ZIGZAGS, text
from schemas.stock import MAX_ID, MAX_QUANTITY, NONE, OUTCOMES, Level, happened_at
from schemas.topics import level_key

RECENT: Final = 32
"""Movements that a level knows again."""
_HASH: Final = 8
_ENTRY: Final = 16
_KEPT: Final = RECENT * _ENTRY
_SIGN: Final = {"received": 1, "sold": -1, "returned": 1, "adjusted": 1}

Levels = MutableMapping[bytes, Level]


class Verdict(Struct, frozen=True, gc=False):
    """What became of a movement, and the level and version after it: of a duplicate, after the first."""

    outcome: str
    quantity: int
    version: int
    code: str | None = None


class Source(Struct, frozen=True, gc=False):
    """The message that movements came in; times in microseconds since 1970.

    `first_at` is when the log first took movements that come once more.
    """

    tenant_key: bytes
    event_id: str
    offset: int
    accepted_at: int
    appended_at: int
    first_at: int | None = None


def fold_batch(levels: Levels, movements: Iterable[Record], source: Source, oversell: bool) -> list[bytes]:
    """Fold the rows of `codec.decode_rows` in their order; return a written MovementOutcome for each."""
    written, unnamed = [], int.from_bytes(_hash(source.event_id), "big")
    for place, movement in enumerate(movements):
        key = level_key(source.tenant_key, movement["product_id"])
        level = levels.get(key, NONE)
        named = movement["movement_id"]
        # A resend of the event finds what it left here, long after the event's own id is forgotten.
        identity = _hash(named) if named else (unnamed + place & 0xFFFFFFFFFFFFFFFF).to_bytes(_HASH, "big")
        new, verdict = fold(level, movement, identity, source, oversell)
        if new is not level:
            levels[key] = new
        head = _HEADS[verdict.outcome, verdict.code]
        written.append(movement[RAW] + head + ZIGZAGS[verdict.quantity] + ZIGZAGS[verdict.version])
    return written


def fold(level: Level, movement: Record, identity: bytes, source: Source, oversell: bool) -> tuple[Level, Verdict]:
    """The level after a movement, the same object where nothing changed, and the verdict."""
    recent, before, kind, quantity = level.recent, level.quantity, movement["kind"], movement["quantity"]
    if identity in recent and (first := _recalled(level, identity)) is not None:
        return level, first
    if impossible := _impossible(level, movement):
        return level, Verdict("rejected", before, level.version, impossible)
    expected = movement["expected_quantity"]
    if expected is not None and expected != before:
        return level, Verdict("rejected", before, level.version, stock.EXPECTED_QUANTITY_MISMATCH)
    set_at = level.set_at
    if source.first_at is not None and _overtaken(level, kind, source.accepted_at, source.first_at):
        return level, Verdict("superseded", before, level.version)
    if kind == "set":
        at = happened_at(movement["occurred_at"], source.accepted_at)
        if set_at is not None and at < set_at:
            return level, Verdict("superseded", before, level.version)
        set_at, after = at, quantity
    else:
        after = before + _SIGN[kind] * quantity
        if after < 0 and after < before and not oversell:
            return level, Verdict("rejected", before, level.version, stock.INSUFFICIENT_STOCK)
        if not -MAX_QUANTITY <= after <= MAX_QUANTITY:
            return level, Verdict("rejected", before, level.version, stock.OUT_OF_RANGE)
    version = level.version + 1
    recent = (recent + identity + after.to_bytes(_HASH, "big", signed=True))[-_KEPT:]
    return (
        Level(after, version, source.offset, source.appended_at, set_at, recent),
        Verdict("applied", after, version),
    )


def _overtaken(level: Level, kind: str, accepted_at: int, first_at: int) -> bool:
    """Whether what happened to a product since a movement came first must not be changed by it."""
    if kind == "set":
        return level.changed_at >= first_at
    return level.set_at is not None and level.set_at >= accepted_at


def _impossible(level: Level, movement: Record) -> str | None:
    quantity, named, occurred_at = movement["quantity"], movement["movement_id"], movement["occurred_at"]
    if level is NONE and not (movement["product_id"] and _storable(movement["product_id"])):
        return stock.INVALID_PRODUCT_ID  # where there is a level, the id was looked at
    if named is not None and not _storable(named):
        return stock.INVALID_MOVEMENT_ID
    if quantity < 0 and movement["kind"] != "adjusted":
        return stock.NEGATIVE_QUANTITY
    if not -MAX_QUANTITY <= quantity <= MAX_QUANTITY or (occurred_at is not None and occurred_at < 0):
        return stock.OUT_OF_RANGE
    return None


def _storable(identifier: str) -> bool:
    return len(identifier) <= MAX_ID and "\x00" not in identifier


def _recalled(level: Level, identity: bytes) -> Verdict | None:
    """The verdict on the movement of this id, where it is among the last that were applied."""
    recent = level.recent
    at = recent.find(identity)
    while at >= 0 and at % _ENTRY:  # in the middle of other entries
        at = recent.find(identity, at + 1)
    if at < 0:
        return None
    quantity = int.from_bytes(recent[at + _HASH : at + _ENTRY], "big", signed=True)
    later = (len(recent) - at) // _ENTRY - 1
    return Verdict("duplicate", quantity, level.version - later)


_HEADS: Final = {
    (kind, code): ZIGZAGS[OUTCOMES.index(kind)] + (b"\0" if code is None else b"\2" + text(code))
    for kind, code in (
        ("applied", None), ("superseded", None), ("duplicate", None), *(("rejected", code) for code in stock.CODES)
    )
}  # fmt: skip
"""The bytes of a MovementOutcome between its movement and the level."""


def _hash(identifier: str) -> bytes:
    return blake2b(identifier.encode(), digest_size=_HASH).digest()
