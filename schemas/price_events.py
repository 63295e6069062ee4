"""A change of a price as a merchant sends it: the type that checks it, and the way into its Avro form and back."""

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, field

from schemas.codec import Record
from schemas.prices import PRICE_CHANGES
from schemas.rows import Currency, Entity, Identifier, Moment, Money, OptionalMoney, Row, as_json, entity_of
from schemas.values import Invalid, amount

MAX_METADATA: Final = 10_000
"""Characters of metadata: each verdict repeats them."""
_NULL: Final = (b"", b"null")


class PriceEvent(Row):
    """A change of one product's price. `old_price` is what you take to be in force."""

    new_price: Money
    old_price: OptionalMoney = field(default_factory=msgspec.Raw)
    currency: Annotated[Currency | None, Meta(description="ISO 4217 code; the tenant's where absent.")] = None
    source: Annotated[str, Meta(min_length=1, max_length=200, description="Who changes it, such as repricer.")] = (
        "unknown"
    )
    metadata: Annotated[
        dict[str, Any] | None, Meta(description=f"Whatever else there is, kept as it is: {MAX_METADATA:,} characters.")
    ] = None
    occurred_at: Annotated[
        Moment | None, Meta(description="When it happened: an older change than the last has no effect. Acceptance.")
    ] = None
    event_id: Annotated[Identifier | None, Meta(description="Your own id of the change, kept as it is.")] = None


class PriceChange(PriceEvent, kw_only=True):
    """A change of the price of the product that it names."""

    product_id: Identifier


def _metadata(fields: dict[str, Any]) -> str:
    text = msgspec.json.encode(fields).decode()
    if len(text) > MAX_METADATA:
        raise Invalid("too_long", "/metadata", f"{len(text):,} characters of JSON; there may be {MAX_METADATA:,}")
    return text


PRICE: Final[Entity] = entity_of(
    "prices",
    PriceChange,
    PRICE_CHANGES,
    {
        "product_id": "id(r.product_id)",
        "new_price": "amount(bytes(r.new_price))",
        "old_price": "None if bytes(r.old_price) in null else amount(bytes(r.old_price))",
        "currency": "code(r.currency) if r.currency else currency or None",
        "metadata": "metadata(r.metadata) if r.metadata else None",
        "event_id": "r.event_id and id(r.event_id)",
    },
    {"metadata": _metadata, "null": _NULL, "amount": amount},
)


def asked(verdict: Record) -> str:
    """A PriceVerdict's change, about as its merchant sent it, as JSON."""
    said = {name: verdict[name] for name in ("product_id", "new_price", "source", "metadata", "event_id")}
    return as_json(said | {"currency": verdict["new_currency"]})


def metadata_json(text: str | None) -> str | None:
    """Metadata as JSON on one line; what is no JSON, as a direct producer may send it, becomes a JSON string."""
    if text is None:
        return None
    try:
        return msgspec.json.encode(msgspec.json.decode(text)).decode()
    except (msgspec.DecodeError, RecursionError):
        return msgspec.json.encode(text).decode()
