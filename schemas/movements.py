"""A movement of stock as a merchant sends it: the type that checks it, and the way into its Avro form and back."""

from typing import Annotated, Any, Final, Literal

from msgspec import Meta

from schemas.codec import Record
from schemas.rows import Entity, Identifier, Moment, Row, as_json, entity_of
from schemas.stock import MAX_QUANTITY, MOVEMENTS, NEGATIVE_QUANTITY
from schemas.values import Invalid

Kind = Annotated[
    Literal["received", "sold", "returned", "adjusted", "set"],
    Meta(
        description="received and returned add, sold takes away, adjusted adds a number of either sign, set replaces."
    ),
]
_Pieces = Annotated[int, Meta(ge=-MAX_QUANTITY, le=MAX_QUANTITY)]
_POINTERS: Final = {
    "invalid_product_id": "/product_id",
    "invalid_movement_id": "/event_id",
    "negative_quantity": "/quantity",
    "insufficient_stock": "/quantity",
    "expected_quantity_mismatch": "/expected_quantity",
}


class Movement(Row):
    """A change of one product's stock."""

    product_id: Identifier
    kind: Kind
    quantity: Annotated[_Pieces, Meta(description="Pieces; negative for `adjusted` only.")]
    event_id: Annotated[
        Identifier | None, Meta(description="Your own id of the movement: under it, it counts once a product.")
    ] = None
    occurred_at: Annotated[
        Moment | None, Meta(description="When it happened: of two sets the later holds. Acceptance where absent.")
    ] = None
    expected_quantity: Annotated[_Pieces | None, Meta(description="Apply only where the level is this.")] = None


def _signed(movement: Movement) -> int:
    if movement.quantity < 0 and movement.kind != "adjusted":
        detail = f"only adjusted may be negative, {movement.kind} is {movement.quantity}"
        raise Invalid(NEGATIVE_QUANTITY, "/quantity", detail)
    return movement.quantity


MOVEMENT: Final[Entity] = entity_of(
    "stock",
    Movement,
    MOVEMENTS,
    {"quantity": "signed(r)", "movement_id": "r.event_id and id(r.event_id)"},
    {"signed": _signed},
)


def pointer(code: str) -> str:
    """JSON pointer (RFC 6901) of the field of a movement that a code of `schemas.stock` is about."""
    return _POINTERS.get(code, "")


def sent(movement: Record) -> str:
    """A movement's record as its merchant sent it, as JSON."""
    said: dict[str, Any] = {("event_id" if name == "movement_id" else name): value for name, value in movement.items()}
    return as_json(said)
