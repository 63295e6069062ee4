"""What reads answer, as PostgreSQL makes it (gateway/sql/), and their operations."""

from typing import Annotated, Any, Final, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from gateway.filters import FILTERS
from gateway.operation import CSV, JSON, KEYS, NDJSON, TENANT, TENANT_CODES, Content, Operation, Said
from gateway.parse import FieldError
from gateway.price_operations import STORED_PRICES, ProductPrice
from schemas.movements import Kind
from schemas.rows import Status
from schemas.stock import MovementOutcome

_DateTime = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
_Money = Annotated[str, Meta(examples=["39.90"], extra_json_schema={"pattern": r"^[0-9]+\.[0-9]{2}$"})]
_Object = Annotated[dict[str, Any], Meta(description="As it was sent, with the fields that were unknown.")]


class StoredCustomer(Struct):
    """A customer as it is now."""

    customer_id: str
    email: str | None
    name: str | None
    phone: str | None
    country: str | None
    attributes: _Object | None
    updated_at: _DateTime | None


class StoredProduct(Struct):
    """A product as it is now."""

    product_id: str
    sku: str
    name: str
    price: _Money
    currency: str
    category: str | None
    active: bool
    attributes: _Object | None
    updated_at: _DateTime | None


class StoredItem(Struct):
    """A line of an order."""

    product_id: str
    quantity: int
    unit_price: _Money


class Unresolved(Struct):
    """What an order names that is not known yet."""

    customer: bool
    products: list[str]


class StoredOrder(Struct):
    """An order as it is now."""

    external_order_id: str
    customer_id: str | None
    customer_name: str | None
    customer_email: str | None
    total_amount: _Money
    currency: str
    order_status: Status
    order_date: _DateTime
    items: list[StoredItem]
    raw_payload: _Object | None
    updated_at: _DateTime | None
    unresolved: Annotated[Unresolved | None, Meta(description="Null where all that it names is known.")]


class CustomerPage(Struct):
    """Customers by id."""

    data: list[StoredCustomer]
    next_cursor: str | None


class ProductPage(Struct):
    """Products by id."""

    data: list[StoredProduct]
    next_cursor: str | None


class OrderPage(Struct):
    """Orders, the newest first."""

    data: list[StoredOrder]
    next_cursor: str | None


class StockLevel(Struct):
    """How much there is of a product."""

    product_id: str
    quantity: int
    version: Annotated[int, Meta(description="Movements applied so far.")]
    updated_at: _DateTime


class StockPage(Struct):
    """Levels by product."""

    data: list[StockLevel]
    next_cursor: str | None


class SentMovement(Struct):
    """A movement as it was sent."""

    kind: Kind
    quantity: int
    event_id: Annotated[str | None, Meta(description="The sender's own id of the movement.")]
    occurred_at: _DateTime | None
    expected_quantity: int | None


class StoredMovement(Struct):
    """A movement of a product, and what became of it."""

    outcome: MovementOutcome
    code: Annotated[str | None, Meta(description="Why it was rejected.")]
    quantity: Annotated[int, Meta(description="The level after it; of a duplicate, after the first.")]
    version: Annotated[int, Meta(description="The level's version, likewise.")]
    movement: SentMovement
    event_id: Annotated[str, Meta(description="Of the message it came in, for GET …/events.")]
    line: Annotated[int, Meta(description="In the body it came in; 0 where that is unknown.")]
    logged_at: _DateTime
    offset: Annotated[int, Meta(description="Where the message lies in its partition of topic `stock`.")]
    row: Annotated[int, Meta(description="Where the movement stands in the message, from 0.")]


class HistoryPage(Struct):
    """Movements of a product, the newest first."""

    data: list[StoredMovement]
    next_cursor: str | None


class Position(Struct):
    """Where a message lies in Kafka."""

    topic: str
    partition: int
    offset: int


class RowOfEvent(FieldError):
    """A row of the event that was refused."""

    line: int
    row: str | None


class _Line(Struct, kw_only=True):
    type: str | UnsetType = UNSET
    rows: Annotated[int, Meta(description="The sum of the five below.")] | UnsetType = UNSET
    applied: int | UnsetType = UNSET
    superseded: int | UnsetType = UNSET
    duplicate: int | UnsetType = UNSET
    conflict: int | UnsetType = UNSET
    rejected: (
        Annotated[int, Meta(description="Those refused before they were accepted, too, where they are kept.")]
        | UnsetType
    ) = UNSET
    code: str | UnsetType | None = UNSET
    detail: str | UnsetType | None = UNSET
    accepted_at: _DateTime | UnsetType = UNSET
    applied_at: _DateTime | UnsetType = UNSET
    position: Position | UnsetType = UNSET


class Repeat(_Line, kw_only=True):
    """Another message with the same event id."""

    event_id: str
    status: Literal["applied", "duplicate", "conflict", "rejected"]


class Event(_Line, kw_only=True):
    """What became of an event. A pending one has an id and a status only."""

    event_id: str
    status: Annotated[
        Literal["pending", "applied", "duplicate", "conflict", "rejected"],
        Meta(
            description="Of the message, which is decided once: applied says that its rows were dealt with, one by one,"
            " and so it says of one whose rows were all superseded or rejected. `applied` and the other counts say what"
            " became of the rows. rejected is said, too, of a message that only keeps rows which were not accepted."
        ),
    ]
    errors: Annotated[list[RowOfEvent], Meta(description="The first 100 rows that were refused.")] | UnsetType = UNSET
    errors_omitted: int | UnsetType = UNSET
    repeats: list[Repeat] | UnsetType = UNSET


_READ: Final = (*TENANT_CODES, "reads_unavailable")
_FRESH: Final = ("Applied-Up-To",)
_UNCACHED: Final = ("Cache-Control", "Vary")
_STORED: Final[dict[str, tuple[Any, Any, Any]]] = {
    "customers": (StoredCustomer, CustomerPage, list[StoredCustomer]),
    "products": (StoredProduct, ProductPage, list[StoredProduct]),
    "orders": (StoredOrder, OrderPage, list[StoredOrder]),
    "stock": (StockLevel, StockPage, list[StockLevel]),
    "stock_history": (StoredMovement, HistoryPage, list[StoredMovement]),
    **STORED_PRICES,
}
_LISTED: Final = ("customers", "products", "orders", "stock")
"""Of which there is one by its id, too."""


def _list(entity: str) -> Operation:
    _, page, rows = _STORED[entity]
    contents = {JSON: Content(page), NDJSON: Content(rows), CSV: Content()}
    return Operation(
        f"list_{entity}",
        "Reads",
        parameters=(*(f"{entity}.{name}" for name in FILTERS[entity]), "page.limit", "page.cursor"),
        answers={200: Said("A page of JSON; or rows, as they are found.", contents, _UNCACHED)},
        codes=(*_READ, "bad_parameter", "not_acceptable", "too_many_streams"),
        headers=_FRESH,
        security=KEYS,
    )


def _show(entity: str, one: Any = None) -> Operation:
    return Operation(
        f"show_{entity.removesuffix('s')}",
        "Reads",
        answers={200: Said("As it is now.", {JSON: Content(one or _STORED[entity][0])}, _UNCACHED)},
        codes=(*_READ, "bad_parameter", "not_acceptable"),
        headers=_FRESH,
        security=KEYS,
    )


READS: Final = {
    **{f"GET {TENANT}/{entity}": _list(entity) for entity in _LISTED},
    **{f"GET {TENANT}/{entity}/{{record_id}}": _show(entity) for entity in _LISTED},
    f"GET {TENANT}/stock/{{record_id}}/history": _list("stock_history"),
    f"GET {TENANT}/prices/{{record_id}}": _show("prices", ProductPrice),
    f"GET {TENANT}/prices/{{record_id}}/history": _list("price_history"),
    f"GET {TENANT}/price-alerts": _list("price_alerts"),
    f"GET {TENANT}/events/{{event_id}}": Operation(
        "show_event",
        "Reads",
        answers={200: Said("What is known of it.", {JSON: Content(Event)}, ("Cache-Control",))},
        codes=(*_READ, "bad_parameter", "unknown_event"),
        security=KEYS,
    ),
}
