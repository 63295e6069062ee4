"""Stock told as the documentation tells it: plain and slow; nothing is forgotten but what the 32nd id pushes out."""

from collections import defaultdict
from typing import Any

from schemas.codec import Record

RECENT = 32
Told = tuple[str, str | None, int, int]
"""Outcome, code, quantity and version."""


class Product:
    """One product. Limits of ids and sizes are left to the examples in tests/unit/test_stock.py."""

    def __init__(self) -> None:
        self.applied: list[tuple[Any, int]] = []
        self.quantity = 0
        self.set_at: int | None = None

    @property
    def version(self) -> int:
        return len(self.applied)

    def take(self, row: Record, identity: Any, accepted_at: int, oversell: bool) -> Told:
        """What becomes of a movement; times in microseconds."""
        oldest = max(0, len(self.applied) - RECENT)
        for place, (other, quantity) in enumerate(self.applied):
            if other == identity and place >= oldest:
                return "duplicate", None, quantity, place + 1
        now = (self.quantity, self.version)
        if row["quantity"] < 0 and row["kind"] != "adjusted":
            return "rejected", "negative_quantity", *now
        if row["expected_quantity"] not in (None, self.quantity):
            return "rejected", "expected_quantity_mismatch", *now
        if row["kind"] == "set":
            at = min(accepted_at, accepted_at if row["occurred_at"] is None else row["occurred_at"])
            if self.set_at is not None and at < self.set_at:
                return "superseded", None, *now
            self.set_at, self.quantity = at, row["quantity"]
        else:
            change = -row["quantity"] if row["kind"] == "sold" else row["quantity"]
            if change < 0 and self.quantity + change < 0 and not oversell:
                return "rejected", "insufficient_stock", *now
            self.quantity += change
        self.applied.append((identity, self.quantity))
        return "applied", None, self.quantity, self.version


class Stock:
    """The stock of all tenants, fed with a partition's messages in their order."""

    def __init__(self) -> None:
        self.products: dict[tuple[str, str], Product] = defaultdict(Product)
        self.oversell: dict[str, bool] = {}
        self.events: dict[tuple[str, str], bytes] = {}

    def take(self, tenant_id: str, event_id: str, body_hash: bytes, rows: list[Record], accepted_at: int) -> Any:
        """`duplicate` or `conflict` of a whole message, or what became of each of its movements."""
        if (first := self.events.get((tenant_id, event_id))) is not None:
            return "duplicate" if first == body_hash else "conflict"
        self.events[tenant_id, event_id] = body_hash
        oversell = self.oversell.get(tenant_id, False)
        return [
            self.products[tenant_id, row["product_id"]].take(
                row, row["movement_id"] or (event_id, place), accepted_at, oversell
            )
            for place, row in enumerate(rows)
        ]

    def levels(self) -> dict[tuple[str, str], tuple[int, int]]:
        """Quantity and version of each product that was ever changed."""
        return {key: (one.quantity, one.version) for key, one in self.products.items() if one.version}
