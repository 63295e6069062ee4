"""The rows merchants send (DESIGN: "Rows"), as the types that validate them, and the way into their Avro form.

A struct names the fields; `Entity.encode` turns a checked row into the bytes that are its part of a batch: money in
cents as two's complement bytes, times in microseconds since 1970.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from schemas.codec import Record, row_writer
from schemas.values import EPOCH, amount, currency_code, identifier, micros

_INSIDE: Final = r"[^\u0000-\u001f\u007f]"
_SEEN: Final = r"[^\s\u0000-\u001f\u007f\ufeff]"
ID_PATTERN: Final = rf"^{_SEEN}({_INSIDE}*{_SEEN})?$"
# Its ends are looked at in `identifier`, the currency in `currency_code`: a pattern costs msgspec half a row.
Identifier = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=100,
        description="The merchant's own string, without whitespace at its ends, and without control characters.",
        extra_json_schema={"pattern": ID_PATTERN},
    ),
]
Text = Annotated[str, Meta(max_length=500)]
Currency = Annotated[
    str,
    Meta(min_length=3, max_length=3, description="ISO 4217 code.", extra_json_schema={"pattern": "^[A-Z]{3}$"}),
]
_AMOUNT: Final[dict[str, Any]] = {
    "pattern": r"^(0|[1-9][0-9]{0,9})(\.[0-9]{1,2}0*)?$",
    "minimum": 0,
    "maximum": 9999999999.99,
}
Money = Annotated[
    msgspec.Raw,
    Meta(
        description="A number, or one as a string (without sign and exponent), with at most 2 decimals.",
        examples=["12.50"],
        extra_json_schema={"type": ["string", "number"], **_AMOUNT},
    ),
]
"""JSON as it came; `amount` reads it."""
OptionalMoney = Annotated[
    msgspec.Raw,
    Meta(
        description="As any amount, or null.",
        examples=["12.50"],
        extra_json_schema={"type": ["string", "number", "null"], **_AMOUNT},
    ),
]
"""The same, where b"" and b"null" are none."""
Moment = Annotated[datetime, Meta(tz=True, description="RFC 3339 with an offset, of a year from 1970 to 2199.")]
Version = Annotated[
    Moment | None,
    Meta(description="Since when the record is so: an older version never replaces a newer. Acceptance where absent."),
]
Attributes = Annotated[dict[str, Any], Meta(description="Whatever else there is; unknown fields join it.")]
Status = Literal["pending", "paid", "processing", "shipped", "delivered", "cancelled", "refunded"]


class Row(Struct, forbid_unknown_fields=True, gc=False):
    """Base of all rows; unknown fields take the slower path that keeps them."""


class Customer(Row):
    """Unique by (tenant, customer_id)."""

    customer_id: Identifier
    email: Annotated[str, Meta(max_length=320)] | None = None
    name: Text | None = None
    phone: Annotated[str, Meta(max_length=50)] | None = None
    country: Annotated[str, Meta(max_length=60)] | None = None
    attributes: Attributes | UnsetType | None = UNSET
    updated_at: Version = None


class Product(Row):
    """Unique by (tenant, product_id) and by (tenant, sku)."""

    product_id: Identifier
    name: Annotated[str, Meta(min_length=1, max_length=500)]
    price: Money
    sku: Annotated[Identifier | None, Meta(description="The product_id where absent; unique.")] = None
    currency: Annotated[Currency | None, Meta(description="ISO 4217 code; the tenant's where absent.")] = None
    category: Text | None = None
    active: bool = True
    attributes: Attributes | UnsetType | None = UNSET
    updated_at: Version = None


class OrderItem(Row):
    """A line of an order."""

    product_id: Identifier
    quantity: Annotated[int, Meta(ge=1, le=1_000_000_000)]
    unit_price: Money


class Order(Row):
    """Unique by (tenant, external_order_id)."""

    external_order_id: Identifier
    total_amount: Money
    currency: Currency
    order_status: Status
    order_date: Moment
    customer_id: Identifier | None = None
    customer_name: Text | None = None
    customer_email: Annotated[str, Meta(max_length=320)] | None = None
    items: Annotated[list[OrderItem], Meta(max_length=1_000)] | None = []
    raw_payload: Attributes | UnsetType | None = UNSET
    unresolved: Annotated[Any, Meta(description="Of reads and exports, whose rows can come back: it is not kept.")] = (
        None
    )
    updated_at: Version = None


_encoder: Final = msgspec.json.Encoder(decimal_format="number")


def _json(fields: dict[str, Any]) -> str | None:
    return _encoder.encode(fields).decode() if fields else None


def _joined(kept: dict[str, Any] | UnsetType | None, extra: dict[str, Any]) -> str | None:
    """Unknown fields join what is kept of them by name."""
    return _json({**extra, **(kept or {})}) if extra or kept else None


_VALUES: Final = {
    "attributes": "joined(r.attributes, extra)",
    "raw_payload": "joined(r.raw_payload, extra) if extra or r.raw_payload else None",
    "updated_at": "None if r.updated_at is None else micros(r.updated_at, '/updated_at')",
    "order_date": "micros(r.order_date, '/order_date')",
    "occurred_at": "None if r.occurred_at is None else micros(r.occurred_at, '/occurred_at')",
    "price": "amount(bytes(r.price))",
    "unit_price": "amount(bytes(r.unit_price))",
    "total_amount": "amount(bytes(r.total_amount))",
    "customer_id": "r.customer_id and id(r.customer_id)",
    "external_order_id": "id(r.external_order_id)",
    "product_id": "id(r.product_id)",
    "sku": "id(r.sku) if r.sku else r.product_id",
}
"""How a field of a row becomes what Avro takes, where it is not the struct's attribute as it is."""
_NAMES: Final = {
    "joined": _joined,
    "json": _json,
    "micros": micros,
    "amount": amount,
    "code": currency_code,
    "id": identifier,
}
_CURRENCY: Final = {
    "orders": "code(r.currency)",
    "products": "code(r.currency) if r.currency else currency",
}


_NATURAL: Final = {"customers": "customer_id", "products": "product_id", "orders": "external_order_id"}
_JSON_TEXT: Final = ("attributes", "metadata", "raw_payload")
_MONEY: Final = ("new_price", "old_price", "price", "total_amount", "unit_price")
TIMES: Final = ("updated_at", "order_date", "occurred_at")


def natural_id(entity: str, record: Record) -> str:
    """The identifier by which the merchant knows the record."""
    return str(record[_NATURAL[entity]])


def as_json(record: Record) -> str:
    """A physical record as the merchant would send it, for people to read."""
    return _encoder.encode(_shown(record)).decode()


def _shown(record: Record) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for name, value in record.items():
        if value is None or name == "line":
            continue
        if name in _MONEY:
            shown[name] = _amount_shown(value)
        elif name in TIMES:
            shown[name] = _moment(value)
        elif name == "items":
            shown[name] = [_shown(item) for item in value]
        elif name in _JSON_TEXT:
            shown[name] = _raw(value)
        else:
            shown[name] = value
    return shown


def _amount_shown(raw: bytes) -> str:
    if len(raw) > 8:
        return f"an amount of {len(raw)} bytes"
    return str(Decimal(int.from_bytes(raw, "big", signed=True)).scaleb(-2))


def _moment(us: int) -> str | int:
    try:
        return (EPOCH + timedelta(microseconds=us)).isoformat().replace("+00:00", "Z")
    except OverflowError:  # a direct producer may send any long
        return us


def _raw(text: str) -> Any:
    """JSON in JSON as it is, where it is that: a direct producer may send any text."""
    try:
        msgspec.json.decode(text)
        return msgspec.Raw(text.encode())
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return text


class Entity(Struct, frozen=True):
    """One kind of row: the struct that checks it, the type of a batch, and the function that writes a row of it.

    `encode(row, line, extra, currency)` gives the row's part of a batch for `codec.frame`; `extra` are the fields that
    the struct does not know, `currency` is the tenant's. It raises Invalid and msgspec.DecodeError.
    """

    name: str
    row: type[Row]
    type: str
    encode: Callable[[Any, int, dict[str, Any], str], bytes]
    keeps_unknown: bool = True
    """Whether unknown fields are kept; else they are wrong."""


def entity_of(
    name: str, row: type[Row], type_: str, values: dict[str, str], names: dict[str, Any], *, keeps_unknown: bool = False
) -> Entity:
    """A kind of row of which `values` say how fields become what Avro takes: see `codec.row_writer`."""
    return Entity(name, row, type_, row_writer(type_, _VALUES | values, _NAMES | names), keeps_unknown)


def _entity(name: str, row: type[Row]) -> Entity:
    values = {"currency": _CURRENCY[name]} if name in _CURRENCY else {}
    return entity_of(name, row, f"tillstream.{name}.v1", values, {}, keeps_unknown=True)


ENTITIES: Final[dict[str, Entity]] = {
    entity.name: entity
    for entity in (_entity("customers", Customer), _entity("products", Product), _entity("orders", Order))
}
