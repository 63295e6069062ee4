"""Which alerts a live stream is about: the filters of GET /price-alerts, on what an alert says instead of in SQL."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from msgspec import Struct

from schemas.codec import Record
from schemas.values import EPOCH


class Facts(NamedTuple):
    """What filters look at: of an alert its product, its status, its findings' names and highest score, its time."""

    product_id: str
    status: str
    names: frozenset[str]
    score: int
    logged_at: datetime

    @classmethod
    def of(cls, batch: Record, row: Record) -> "Facts":
        """Of a PriceVerdict in its batch."""
        found = row["findings"]
        names, score = frozenset(one["name"] for one in found), max((one["score"] for one in found), default=0)
        return cls(row["product_id"], row["status"], names, score, EPOCH + timedelta(milliseconds=batch["time_ms"]))


MATCHES: Final[Mapping[str, Callable[[Facts, list[Any]], bool]]] = {
    "product_id": lambda alert, wanted: alert.product_id in wanted,
    "name": lambda alert, wanted: not alert.names.isdisjoint(wanted),
    "status": lambda alert, wanted: alert.status in wanted,
    "min_score": lambda alert, wanted: alert.score >= wanted[0],
    "from": lambda alert, wanted: alert.logged_at >= wanted[0],
    "to": lambda alert, wanted: alert.logged_at < wanted[0],
}
"""By the name of a filter in `gateway.filters.FILTERS`."""


class Event(NamedTuple):
    """The alerts of one record of `prices.verdicts`, each as JSON, and where it lies. `facts` are of each of them."""

    partition: int
    offset: int
    alerts: list[bytes]
    size: int
    facts: tuple[Facts, ...] = ()


class Wanted(Struct, frozen=True):
    """The filters of one stream, as `gateway.filters.read` found them."""

    values: Mapping[str, list[Any]] = {}

    def of(self, event: Event) -> Event | None:
        """The event with the alerts that are wanted; None where none is."""
        if not self.values:
            return event
        kept = [
            (text, facts)
            for text, facts in zip(event.alerts, event.facts, strict=True)
            if all(MATCHES[name](facts, wanted) for name, wanted in self.values.items())
        ]
        if not kept:
            return None
        alerts = [text for text, _ in kept]
        return event._replace(alerts=alerts, size=sum(map(len, alerts)), facts=tuple(facts for _, facts in kept))


ALL: Final = Wanted()
