"""Prices on a terminal: verdicts, alerts, histories, each in a line."""

from collections import Counter
from typing import Any, Final

from msgspec import Struct

from deploy.operate import say, show, table_of

IN_FORCE: Final = ("accepted", "anomaly")
COUNTS: Final = ("accepted", "anomaly", "held", "rejected", "superseded", "duplicate", "conflict", "pending")


class Told(Struct):
    """What became of changes: `taken` and `refused` by the gateway, then by verdict."""

    taken: int = 0
    refused: int = 0
    verdicts: Counter[str] = Counter()
    not_in_force: int = 0

    def add(self, accepted: int, refused: int, lines: list[dict[str, Any]], summary: dict[str, Any]) -> None:
        """The lines of one answer; those of changes that had come before tell of the first time."""
        self.taken += accepted
        self.refused += refused
        self.verdicts = self.verdicts + Counter({name: summary[name] for name in COUNTS})
        self.not_in_force += sum(line["status"] not in IN_FORCE for line in lines)

    @property
    def all_in_force(self) -> bool:
        """Whether every price that was sent came in force."""
        return not (self.refused or self.not_in_force or self.verdicts["conflict"] or self.verdicts["pending"])

    def counts(self) -> dict[str, int]:
        """By name."""
        return {"taken": self.taken, "refused": self.refused, **{name: self.verdicts[name] for name in COUNTS}}


def verdict_line(verdict: dict[str, Any]) -> str:
    """`P-1 anomaly: 10.00 -> 100.00 EUR (decimal_shift 99, ...)`."""
    before, new, after = verdict["price_before"] or "none", verdict["new_price"] or "?", verdict["price_after"]
    currency = verdict["new_currency"] or verdict.get("currency") or ""
    moved = f"{before} -> {new} {currency}".rstrip()
    stays = "" if verdict["status"] in IN_FORCE else f", {after or 'none'} stays"
    found = "; ".join(f"{one['name']} {one['score']}, {one['reason']}" for one in verdict["findings"])
    return f"{verdict['product_id']} {verdict['status']}: {moved}{stays}" + (f" ({found})" if found else "")


def alert_line(alert: dict[str, Any]) -> str:
    """A verdict with its time, and what was decided where it was held."""
    decision = alert.get("decision")
    decided = f" [{decision['decision']} by {decision['decided_by']}]" if decision else ""
    return f"{alert['logged_at']} {verdict_line(alert)}{decided}"


def show_price(price: dict[str, Any]) -> None:
    """The price in force, its limits, and its changes, the newest first."""
    in_force = f"{price['price']} {price['currency'] or ''}".rstrip() if price["price"] else "no price"
    since = f" since {price['since']}" if price["since"] else ""
    say(f"{price['product_id']}: {in_force}{since}, version {price['version']}{limits_text(price)}")
    table = table_of("occurred", "status", "before", "new", "after", "source", "findings")
    for change in price["changes"]:
        found = "; ".join(f"{one['name']} {one['score']}" for one in change["findings"])
        prices = (change[name] or "" for name in ("price_before", "new_price", "price_after"))
        table.add_row(change["occurred_at"], change["status"], *prices, change["source"], found)
    if price["changes"]:
        show(table)


def limits_text(price: dict[str, Any]) -> str:
    """`, floor 8.50, ceiling 12.00`."""
    return "".join(f", {name} {price[name]}" for name in ("floor", "ceiling") if price[name] is not None)
