"""The rows merchants send (DESIGN: "Rows"), as the types that validate them, and their Avro records.

A struct names the fields; `record` turns a checked row into the physical Avro record of `schemas.codec`: money in
cents as two's complement bytes, times in microseconds since 1970.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from schemas.codec import Record
from schemas.errors import Rejected

Identifier = Annotated[str, Meta(min_length=1, max_length=100)]
Text = Annotated[str, Meta(max_length=500)]
# The pattern's $ matches before a line feed at the end, too; the length does not.
Currency = Annotated[str, Meta(pattern="^[A-Z]{3}$", max_length=3, description="ISO 4217 code")]
Moment = Annotated[datetime, Meta(tz=True)]
Status = Literal["pending", "paid", "processing", "shipped", "delivered", "cancelled", "refunded"]

MAX_CENTS: Final = 10**12 - 1
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_DAY: Final = 0
_MICROSECOND: Final = timedelta(microseconds=1)
_LAST_DAY: Final = (datetime(2200, 1, 1, tzinfo=UTC) - _EPOCH) // _MICROSECOND


class Invalid(Rejected):
    """A field of a row is wrong; `pointer` is its JSON pointer (RFC 6901)."""

    def __init__(self, code: str, pointer: str, detail: str) -> None:
        super().__init__(code, detail)
        self.pointer = pointer


class Row(Struct, forbid_unknown_fields=True, gc=False):
    """Base of all rows; unknown fields take the slower path that keeps them."""


class Customer(Row):
    """Unique by (tenant, customer_id)."""

    customer_id: Identifier
    email: Annotated[str, Meta(max_length=320)] | None = None
    name: Text | None = None
    phone: Annotated[str, Meta(max_length=50)] | None = None
    country: Annotated[str, Meta(max_length=60)] | None = None
    attributes: dict[str, Any] | UnsetType = UNSET
    updated_at: Moment | None = None


class Product(Row):
    """Unique by (tenant, product_id) and by (tenant, sku)."""

    product_id: Identifier
    name: Annotated[str, Meta(min_length=1, max_length=500)]
    price: Decimal
    sku: Identifier | None = None
    currency: Currency | None = None
    category: Text | None = None
    active: bool = True
    attributes: dict[str, Any] | UnsetType = UNSET
    updated_at: Moment | None = None


class OrderItem(Row):
    """A line of an order."""

    product_id: Identifier
    quantity: Annotated[int, Meta(ge=1, le=1_000_000_000)]
    unit_price: Decimal


class Order(Row):
    """Unique by (tenant, external_order_id)."""

    external_order_id: Identifier
    total_amount: Decimal
    currency: Currency
    order_status: Status
    order_date: Moment
    customer_id: Identifier | None = None
    customer_name: Text | None = None
    customer_email: Annotated[str, Meta(max_length=320)] | None = None
    items: Annotated[list[OrderItem], Meta(max_length=1_000)] = []
    updated_at: Moment | None = None


def money(value: Decimal, pointer: str) -> bytes:
    """Cents as Avro's decimal bytes. Raises Invalid when negative, not finite, too large or finer than cents."""
    text = str(value)
    # Two decimals, as nearly all amounts have: text is cheaper than Decimal's arithmetic.
    plain = text[-3:-2] == "." and len(text) < 20
    cents = int(text[:-3] + text[-2:]) if plain else _cents(value, pointer)
    if cents < 0:
        raise Invalid("negative_amount", pointer, f"expected 0 or more, got {value}")
    if cents > MAX_CENTS:
        raise Invalid("out_of_range", pointer, "expected at most 9999999999.99")
    return cents.to_bytes((cents.bit_length() + 8) >> 3, "big")


def _cents(value: Decimal, pointer: str) -> int:
    if not value.is_finite() or value.adjusted() > 12:  # before 1e999999 becomes an integer of a million digits
        raise Invalid("out_of_range", pointer, "expected at most 9999999999.99")
    cents = int(value.scaleb(2))
    if Decimal(cents).scaleb(-2) != value:  # scaleb rounds to 28 digits, a comparison does not
        raise Invalid("too_many_decimals", pointer, f"expected at most 2 decimals, got {value}")
    return cents


def micros(value: datetime, pointer: str) -> int:
    """Microseconds since 1970. Raises Invalid for a moment outside 1970 to 2199."""
    us = (value - _EPOCH) // _MICROSECOND
    if not _FIRST_DAY <= us < _LAST_DAY:
        raise Invalid("out_of_range", pointer, "expected a time from 1970 to 2199")
    return us


_encoder: Final = msgspec.json.Encoder(decimal_format="number")


def _json(fields: dict[str, Any]) -> str | None:
    return _encoder.encode(fields).decode() if fields else None


def _updated_at(row: Customer | Product | Order) -> int | None:
    return None if row.updated_at is None else micros(row.updated_at, "/updated_at")


def customer_record(row: Customer, line: int, extra: dict[str, Any], currency: str) -> Record:
    """Avro record of a customer; unknown fields join its attributes."""
    attributes = row.attributes or {}
    return {
        "line": line,
        "customer_id": row.customer_id,
        "email": row.email,
        "name": row.name,
        "phone": row.phone,
        "country": row.country,
        "attributes": _json({**extra, **attributes}),
        "updated_at": _updated_at(row),
    }


def product_record(row: Product, line: int, extra: dict[str, Any], currency: str) -> Record:
    """Avro record of a product; the sku defaults to the product's id, the currency to the tenant's."""
    attributes = row.attributes or {}
    return {
        "line": line,
        "product_id": row.product_id,
        "sku": row.sku or row.product_id,
        "name": row.name,
        "price": money(row.price, "/price"),
        "currency": row.currency or currency,
        "category": row.category,
        "active": row.active,
        "attributes": _json({**extra, **attributes}),
        "updated_at": _updated_at(row),
    }


def order_record(row: Order, line: int, extra: dict[str, Any], currency: str) -> Record:
    """Avro record of an order with its items; unknown fields become its raw payload."""
    return {
        "line": line,
        "external_order_id": row.external_order_id,
        "customer_id": row.customer_id,
        "customer_name": row.customer_name,
        "customer_email": row.customer_email,
        "total_amount": money(row.total_amount, "/total_amount"),
        "currency": row.currency,
        "order_status": row.order_status,
        "order_date": micros(row.order_date, "/order_date"),
        "items": [
            {
                "product_id": item.product_id,
                "quantity": item.quantity,
                "unit_price": money(item.unit_price, f"/items/{i}/unit_price"),
            }
            for i, item in enumerate(row.items)
        ],
        "raw_payload": _json(extra),
        "updated_at": _updated_at(row),
    }


_NATURAL: Final = {"customers": "customer_id", "products": "product_id", "orders": "external_order_id"}
_JSON_TEXT: Final = ("attributes", "raw_payload")
_MONEY: Final = ("price", "total_amount", "unit_price")
_TIMES: Final = ("updated_at", "order_date")


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
            cents = int.from_bytes(value, "big", signed=True)
            shown[name] = str(Decimal(cents).scaleb(-2))
        elif name in _TIMES:
            shown[name] = _moment(value)
        elif name == "items":
            shown[name] = [_shown(item) for item in value]
        elif name in _JSON_TEXT:
            shown[name] = _raw(value)
        else:
            shown[name] = value
    return shown


def _moment(us: int) -> str | int:
    try:
        return (_EPOCH + timedelta(microseconds=us)).isoformat().replace("+00:00", "Z")
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
    """One kind of row: the struct that checks it, and the function that makes its record."""

    name: str
    row: type[Customer] | type[Product] | type[Order]
    record: Callable[[Any, int, dict[str, Any], str], Record]

    @property
    def type(self) -> str:
        """CloudEvents type of a batch of these rows."""
        return f"tillstream.{self.name}.v1"


ENTITIES: Final[dict[str, Entity]] = {
    entity.name: entity
    for entity in (
        Entity("customers", Customer, customer_record),
        Entity("products", Product, product_record),
        Entity("orders", Order, order_record),
    )
}
