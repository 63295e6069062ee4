"""Whether a row makes sense to a shop, beyond its shape: pure functions over a row and its tenant's policies.

References are not looked at: an order may come before its product or customer, and a read joins them once they are
there.
"""

from typing import Final

from producers.tenants import Policies
from schemas import codec
from schemas.currencies import CURRENCIES

Fault = tuple[str, str, str]
"""JSON pointer (RFC 6901), code, detail."""

_MONEY_BYTES: Final = 8


def faults(entity: str, row: codec.Record, policies: Policies) -> list[Fault]:
    """All that is wrong with a row."""
    if entity == "customers":
        return []
    wrong = []
    currency = row["currency"]
    if currency not in CURRENCIES:
        wrong.append(("/currency", "unknown_currency", f"{currency!r} is no ISO 4217 code"))
    elif policies.currencies and currency not in policies.currencies:
        allowed = ", ".join(policies.currencies)
        wrong.append(("/currency", "currency_not_allowed", f"{currency} is not among the tenant's: {allowed}"))
    if entity == "orders" and row["items"] and policies.order_totals != "any":
        wrong += _total(row, policies)
    return wrong


def _total(row: codec.Record, policies: Policies) -> list[Fault]:
    if any(len(amount) > _MONEY_BYTES for amount in (row["total_amount"], *(i["unit_price"] for i in row["items"]))):
        return []  # PostgreSQL refuses it
    total = int.from_bytes(row["total_amount"], "big", signed=True)
    items = sum(item["quantity"] * int.from_bytes(item["unit_price"], "big", signed=True) for item in row["items"])
    if total == items or (policies.order_totals == "at_least" and total > items):
        return []
    detail = f"the items add up to {_amount(items)}, total_amount is {_amount(total)}"
    return [("/total_amount", "total_mismatch", detail)]


def _amount(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02d}"
