"""Prices on a terminal: verdicts, alerts, histories, each in a line."""

from collections import Counter
from datetime import datetime
from itertools import groupby
from typing import Any, Final

from msgspec import Struct
from rich.console import Console

from deploy.operate import console, say, show, table_of

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
    stays = "" if verdict["status"] in IN_FORCE else f", {verdict['price_after'] or 'none'} stays"
    found = f" ({_found(verdict)})" if verdict["findings"] else ""
    return f"{verdict['product_id']} {verdict['status']}: {_moved(verdict)}{stays}{found}"


def alert_line(alert: dict[str, Any]) -> str:
    """A verdict with its time, and what became of it where it was held."""
    decision, successor = alert.get("decision"), alert.get("superseded_by")
    became = f" [{decision['decision']} by {decision['decided_by']}]" if decision else ""
    became = f" [superseded by {successor['new_price']}]" if successor else became
    return f"{alert['logged_at']} {verdict_line(alert)}{became}"


def show_price(price: dict[str, Any], to: Console = console) -> None:
    """The price in force, its limits, and its changes, the newest first; in 80 columns where there are no more."""
    in_force = f"{price['price']} {price['currency'] or ''}".rstrip() if price["price"] else "no price"
    since = f" since {_time(price['since'])}" if price["since"] else ""
    say(f"{price['product_id']}: {in_force}{since}, version {price['version']}", to)
    if limits := limits_text(price):
        say(limits.removeprefix(", "), to)
    table = table_of("occurred", "status", "price", "source", "findings", whole=("occurred", "status", "price"))
    for change in price["changes"]:
        found = ", ".join(f"{one['name']} {one['score']}" for one in change["findings"])
        table.add_row(_time(change["occurred_at"]), change["status"], _moved(change), change["source"], found)
    if price["changes"]:
        show(table, to)


def show_held(alerts: list[dict[str, Any]], to: Console = console) -> None:
    """Held prices by the message that they came in, the newest first, so that all of one can be decided together."""
    for (event_id, logged_at), some in groupby(alerts, lambda alert: (alert["event_id"], alert["logged_at"])):
        say(f"message {event_id}, {_time(logged_at)}", to)
        table = table_of("product", "in force -> held", "findings", whole=("in force -> held",))
        for alert in some:
            table.add_row(alert["product_id"], _moved(alert), _found(alert))
        show(table, to)


def limits_text(price: dict[str, Any]) -> str:
    """`, floor 8.50, ceiling 12.00`."""
    return "".join(f", {name} {price[name]}" for name in ("floor", "ceiling") if price[name] is not None)


def _moved(change: dict[str, Any]) -> str:
    currency = change["new_currency"] or change.get("currency") or ""
    return f"{change['price_before'] or 'none'} -> {change['new_price'] or '?'} {currency}".rstrip()


def _found(change: dict[str, Any]) -> str:
    return "; ".join(f"{one['name']} {one['score']}, {one['reason']}" for one in change["findings"])


def _time(text: str) -> str:
    """An RFC 3339 time of the gateway, which is UTC, to the second."""
    return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M:%S}"
