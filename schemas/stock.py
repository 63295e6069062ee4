"""Stock as it crosses processes: movements go in, levels and outcomes come out.

`stock` carries batches of movements and policies, in the tenant's order. Streams fold them (`streams/stock.py`) and
write, in one transaction, the new levels to `stock.levels` and one StockOutcome a message to `outcomes`. A message that
was not folded (duplicate, conflict, dead letter) has a plain Outcome there instead; `ce_type` tells them apart, and
`ce_subject` of both is the id of the event.
"""

from typing import Final, Literal, get_args

from msgspec import Struct

from schemas import codec
from schemas.codec import Record

MOVEMENTS: Final = "tillstream.stock-movements.v1"
POLICY: Final = "tillstream.stock-policy.v1"
LEVEL: Final = "tillstream.stock-level.v1"
OUTCOME: Final = "tillstream.stock-outcome.v1"
STOCK_TYPES: Final = frozenset({MOVEMENTS, POLICY})
KINDS: Final = ("received", "sold", "returned", "adjusted", "set")
MovementOutcome = Literal["applied", "superseded", "duplicate", "rejected"]
OUTCOMES: Final[tuple[str, ...]] = get_args(MovementOutcome)

MAX_QUANTITY: Final = 10**15
"""The largest quantity and level, either sign: exact in JSON's numbers too."""
MAX_ID: Final = 100
"""Characters of a product's or movement's id, as `schemas.rows.Identifier`."""

# Why a movement is rejected.
INVALID_PRODUCT_ID: Final = "invalid_product_id"
INVALID_MOVEMENT_ID: Final = "invalid_movement_id"
NEGATIVE_QUANTITY: Final = "negative_quantity"
OUT_OF_RANGE: Final = "out_of_range"
EXPECTED_QUANTITY_MISMATCH: Final = "expected_quantity_mismatch"
INSUFFICIENT_STOCK: Final = "insufficient_stock"
CODES: Final = (
    INVALID_PRODUCT_ID, INVALID_MOVEMENT_ID, NEGATIVE_QUANTITY, OUT_OF_RANGE, EXPECTED_QUANTITY_MISMATCH,
    INSUFFICIENT_STOCK,
)  # fmt: skip


class Level(Struct, frozen=True, gc=False):
    """How much there is of a product; fields as in StockLevel, times in microseconds since 1970."""

    quantity: int = 0
    version: int = 0
    source_offset: int = -1
    changed_at: int = 0
    set_at: int | None = None
    recent: bytes = b""


NONE: Final = Level()
"""The level of a product of which nothing is known."""

_write: Final = codec.struct_writer(
    LEVEL, "r, tenant_id, product_id", {"tenant_id": "tenant_id", "product_id": "product_id"}
)


def encode_level(key: bytes, level: Level) -> bytes:
    """The value of a level under its key in `stock.levels`."""
    tenant_id, _, product_id = key.decode().partition("/")
    return _write(level, tenant_id, product_id)


def decode_level(value: bytes) -> Level:
    """Read a value of `stock.levels`, without tenant and product; raises Undecodable."""
    record = codec.decode(LEVEL, value)
    return Level(**{field: record[field] for field in Level.__struct_fields__})


def happened_at(occurred_at: int | None, accepted_at: int) -> int:
    """When a movement counts as having happened: no clock is believed that runs ahead of acceptance. Microseconds."""
    return accepted_at if occurred_at is None or occurred_at > accepted_at else occurred_at


def accepted_at(accepted_ms: int, time_ms: int) -> int:
    """When a message was accepted, in microseconds: by the sender's clock, but not after it was appended."""
    return min(accepted_ms, time_ms) * 1000


def reason(outcome: Record) -> str:
    """Why a MovementOutcome is what it is, in words; empty where it was simply applied."""
    movement, quantity, version = outcome["movement"], outcome["quantity"], outcome["version"]
    match outcome["outcome"], outcome["code"]:
        case "duplicate", _:
            return f"this movement id was applied before, as version {version}"
        case "superseded", _:
            return f"older than what set the level; it stays {quantity}"
        case _, "insufficient_stock":
            return f"{movement['kind']} {movement['quantity']} of {quantity}"
        case _, "expected_quantity_mismatch":
            return f"expected {movement['expected_quantity']}, the level is {quantity} (version {version})"
        case _, "negative_quantity":
            return f"only adjusted may be negative, {movement['kind']} is {movement['quantity']}"
        case _, "out_of_range":
            return f"quantities and levels are at most {MAX_QUANTITY}, times are after 1970"
        case _, "invalid_product_id" | "invalid_movement_id":
            return f"an id has 1 to {MAX_ID} characters and no NUL"
        case _:
            return ""
