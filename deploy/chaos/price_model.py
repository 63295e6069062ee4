"""Prices told as the documentation tells them, but for the detectors: whether a change is an anomaly is not asked here.

The clients of a run send nothing that is held: by default a finding flags, and the price comes in force all the same.
So it is known of every change what price and version it leaves, and a change that was judged twice, not at all or out
of order shows in all that follow.
"""

from dataclasses import dataclass, field
from typing import Any

from deploy.chaos.rows_model import cents, micros

Row = dict[str, Any]


@dataclass(slots=True)
class _Product:
    version: int = 0
    price: int | None = None
    currency: str = ""
    since_us: int = 0
    said_us: int = 0
    offset: int = -1


@dataclass
class Prices:
    """Prices of all tenants, fed with the messages of `prices` in their order."""

    products: dict[tuple[str, str], _Product] = field(default_factory=dict)
    changes: list[Row] = field(default_factory=list)

    def take(self, tenant: str, rows: list[tuple[int, Row]], offset: int, logged_ms: int) -> list[str]:
        """Judge the changes of a message, each with its line; say of each: applied, superseded or rejected."""
        told: list[str] = []
        for index, (line, row) in enumerate(rows):
            state = self.products.setdefault((tenant, row["product_id"]), _Product())
            before = state.price
            logged_us = logged_ms * 1000
            sent = row.get("occurred_at")
            when = min(micros(sent), logged_us) if sent else logged_us
            price, currency = cents(row["new_price"]), row.get("currency") or "EUR"
            status = "in force"
            if when < state.said_us:
                status = "superseded"
            elif state.version and (price, currency) == (state.price, state.currency):
                state.said_us = when
            elif price <= 0:
                status = "rejected"
            else:
                state.version, state.price, state.currency = state.version + 1, price, currency
                state.since_us = state.said_us = when
                state.offset = offset
            self.changes.append(
                {
                    "tenant_id": tenant, "product_id": row["product_id"], "log_offset": offset, "row_index": index,
                    "line": line, "change_id": row.get("event_id"), "status": status,
                    "price_before": before,
                    "new_price": price, "price_after": state.price, "currency": state.currency or None,
                    "version": state.version, "occurred_at": when,
                }
            )  # fmt: skip
            told.append("applied" if status == "in force" else status)
        return told

    def in_force(self) -> list[Row]:
        """The rows of table `prices`."""
        return [
            {
                "tenant_id": tenant, "product_id": product, "price": state.price, "currency": state.currency or None,
                "since": state.since_us, "version": state.version, "source_offset": state.offset,
            }
            for (tenant, product), state in self.products.items() if state.version
        ]  # fmt: skip
