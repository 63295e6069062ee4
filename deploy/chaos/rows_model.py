"""Bulk rows told as the documentation tells them: one by one in the order of the log, from the JSON that was sent.

Shares no code with gateway, streams and sinks: money is Decimal, times are datetime, a table is a dictionary.
"""

from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

Row = dict[str, Any]
Version = tuple[int, int, int]
"""When (microseconds since 1970), source offset, index in the message: the newer replaces the older."""

CURRENCIES: Final = frozenset({"EUR", "USD"})
"""Those that a run uses and that exist."""
ID: Final = {"customers": "customer_id", "products": "product_id", "orders": "external_order_id"}
_FIELDS: Final[dict[str, dict[str, Any]]] = {
    "customers": dict.fromkeys(("email", "name", "phone", "country", "attributes")),
    "products": {"sku": None, "name": None, "price": None, "currency": "EUR", "category": None, "active": True}
    | {"attributes": None},
    "orders": dict.fromkeys(
        ("customer_id", "customer_name", "customer_email", "total_amount", "currency", "order_status", "order_date")
    ),
}
"""What a record holds, and what an absent field is."""
_KNOWN: Final = {*_FIELDS["orders"], "external_order_id", "items", "updated_at"}


def micros(moment: str) -> int:
    """A time of RFC 3339 in microseconds since 1970."""
    since = datetime.fromisoformat(moment.replace("Z", "+00:00")) - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def cents(amount: str | float) -> int:
    """An amount with at most two decimals, in cents."""
    return int(Decimal(str(amount)) * 100)


class Records:
    """Customers, products and orders of all tenants."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[tuple[str, str], tuple[Version, Row]]] = {entity: {} for entity in ID}
        self.skus: dict[tuple[str, str], str] = {}
        """Who has a sku: product by tenant and sku."""

    def take(
        self, tenant: str, entity: str, rows: list[Row], offset: int, accepted_ms: int, logged_ms: int
    ) -> tuple[Counter[str], dict[int, str]]:
        """What became of the rows of a message, counted; and the code of each that was rejected, by its index."""
        told: Counter[str] = Counter()
        codes: dict[int, str] = {}
        for index, row in enumerate(rows):
            sent = row.get("updated_at")
            at = min(micros(sent) if sent else accepted_ms * 1000, logged_ms * 1000)
            code = _meaningless(entity, row) or self._apply(tenant, entity, row, (at, offset, index), told)
            if code:
                told["rejected"] += 1
                codes[index] = code
        return told, codes

    def _apply(self, tenant: str, entity: str, row: Row, version: Version, told: Counter[str]) -> str:
        """Put a row in the place of the record it is newer than; returns why it is rejected, if it is."""
        table, key = self.tables[entity], (tenant, row[ID[entity]])
        known = table.get(key)
        if known is not None and known[0] >= version:
            told["superseded"] += 1
            return ""
        if entity == "products":
            sku = row.get("sku") or row["product_id"]
            if self.skus.get((tenant, sku), key[1]) != key[1]:
                return "sku_taken"
            if known is not None:
                del self.skus[tenant, known[1].get("sku") or known[1]["product_id"]]
            self.skus[tenant, sku] = key[1]
        table[key] = version, row
        told["applied"] += 1
        return ""

    def expected(self) -> dict[str, list[Row]]:
        """The rows of each table."""
        rows: dict[str, list[Row]] = {"customers": [], "products": [], "orders": [], "order_items": []}
        for entity, table in self.tables.items():
            for (tenant, id_), (version, row) in table.items():
                record: Row = {"tenant_id": tenant, ID[entity]: id_} | _columns(entity, row)
                sent = row.get("updated_at")
                record |= {"updated_at": micros(sent) if sent else None}
                record |= dict(zip(("version_at", "version_offset", "version_row"), version, strict=True))
                rows[entity].append(record)
                if entity == "orders":
                    rows["order_items"] += _items(tenant, id_, row)
        return rows


def _columns(entity: str, row: Row) -> Row:
    columns = {name: row.get(name, absent) for name, absent in _FIELDS[entity].items()}
    if entity == "products":
        columns |= {"sku": row.get("sku") or row["product_id"], "price": cents(row["price"])}
    if entity == "orders":
        unknown = {name: value for name, value in row.items() if name not in _KNOWN}
        columns |= {"total_amount": cents(row["total_amount"]), "order_date": micros(row["order_date"])}
        columns |= {"raw_payload": unknown or None}
    return columns


def _items(tenant: str, order: str, row: Row) -> list[Row]:
    return [
        {
            "tenant_id": tenant,
            "external_order_id": order,
            "item": n,
            "product_id": item["product_id"],
            "quantity": item["quantity"],
            "unit_price": cents(item["unit_price"]),
            "ordered_at": micros(row["order_date"]),
        }
        for n, item in enumerate(row.get("items", []))
    ]


def _meaningless(entity: str, row: Row) -> str:
    """Why a row means nothing to a shop, as the code of the first reason."""
    if entity == "customers":
        return ""
    if row.get("currency", "EUR") not in CURRENCIES:
        return "unknown_currency"
    items = row.get("items", [])
    total = sum(item["quantity"] * cents(item["unit_price"]) for item in items)
    return "total_mismatch" if items and total != cents(row["total_amount"]) else ""
