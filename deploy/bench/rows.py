"""The rows that are sent: seeded lines of each entity, and the same rows as text for COPY."""

import json
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, Final

from producers import generate
from producers.generate import Plan

ENTITIES: Final = ("orders", "customers", "products")
MESSAGE_ROWS: Final = 1_000
_PRODUCTS: Final = 5_000
_MOST: Final = 10_000_000
_TEXT: Final = re.compile(r"[\\\t\n\r]")
_COLUMNS: Final = {
    "orders": ("external_order_id", "customer_id", "customer_name", "customer_email", "total_amount", "currency",
               "order_status", "order_date", "raw_payload"),
    "customers": ("customer_id", "email", "name", "phone", "country", "attributes"),
    "products": ("product_id", "sku", "name", "price", "currency", "category", "active", "attributes"),
}  # fmt: skip
"""As in sinks/sql/staging.sql, between the tenant and the version, without the id, which comes second."""


def lines(entity: str, first: int, count: int) -> Iterator[bytes]:
    """NDJSON lines `first` to `first + count` of an entity; orders have about 240 bytes and no items."""
    make: Callable[[Plan, int, int, int], Iterator[bytes]] = {
        "orders": generate.order_240,
        "customers": generate.customers,
        "products": generate.products,
    }[entity]
    return make(Plan(1, _PRODUCTS, _MOST, seed=11), 0, first, count)


def copy_text(entity: str, tenant_id: str, rows: list[bytes], first: int = 0) -> bytes:
    """The rows in COPY's text format, for the entity's staging table, with the versions that messages give them."""
    texts = []
    for n, row in enumerate(map(json.loads, rows), first):
        values = [_text(name, row.get(name)) for name in _COLUMNS[entity]]
        values.insert(1, f"00000000-0000-5000-8000-{n:012d}")
        version = ("2026-01-01T00:00:00Z", str(n // MESSAGE_ROWS), str(n % MESSAGE_ROWS))
        texts.append("\t".join((tenant_id, *values, _text("updated_at", row.get("updated_at")), *version)))
    return ("\n".join(texts) + "\n").encode()


def _text(name: str, value: Any) -> str:
    if value is None:
        return "\\N"
    if name in ("total_amount", "price"):
        return str(int(Decimal(value) * 100))
    text = json.dumps(value) if isinstance(value, dict | bool) else str(value)
    return _TEXT.sub(lambda found: {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}[found[0]], text)
