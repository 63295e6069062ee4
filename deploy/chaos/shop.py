"""What the clients of a run ask for: seeded rows, few ids and many writers, so that everything collides.

A client of the same seed asks for the same things in the same order. How the requests of several clients interleave,
and which of them must be sent again, is chance's; the check goes by the log that was really written.
"""

import json
import random
from collections import deque
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from msgspec import Struct, structs

ENTITIES: Final = ("customers", "products", "orders")
_IDS: Final = {"customers": 60, "products": 60, "orders": 150}
_STATUSES: Final = ("pending", "paid", "processing", "shipped", "delivered", "cancelled", "refunded")
_KINDS: Final = ("received", "received", "received", "sold", "sold", "sold", "returned", "adjusted", "set")
_WEIGHTS: Final = {
    "customers": 10, "products": 10, "orders": 20, "stock": 20, "prices": 14, "again": 14, "reuse": 4, "upload": 8,
}  # fmt: skip
_REMEMBERED: Final = 40
_LATE: Final = timedelta(minutes=30)

Row = dict[str, Any]


class Ask(Struct, frozen=True):
    """A request as a client makes it, however often it must be sent.

    `to` is an entity, `stock`, `prices`, or of an upload `open`, `chunk`, `complete`, `cancel`. `refused` are the lines
    of the body that the gateway must refuse, with the code. `upload` is the id of the `open` that it belongs to.
    """

    id: str
    tenant: str
    to: str
    key: str
    body: str
    refused: dict[int, str] = {}
    upload: str = ""
    chunk: int = 0
    why: str = "new"


class Shop:
    """One client of a tenant."""

    def __init__(self, seed: int, tenant: str, client: int, began: float, rows: int = 12) -> None:
        """`began` is the run's beginning in Unix seconds: times in rows lie around it. `rows` is the most of a body."""
        self._chance = random.Random(f"{seed}/{tenant}/{client}")
        self._name, self._tenant, self._rows = f"{tenant}/{client}", tenant, rows
        self._began = datetime.fromtimestamp(int(began), UTC)
        self._number = 0
        self._sent: deque[Ask] = deque(maxlen=_REMEMBERED)

    def next(self) -> list[Ask]:
        """What to ask for next, in this order; several requests where they belong together."""
        chance = self._chance
        [what] = chance.choices(list(_WEIGHTS), list(_WEIGHTS.values()))
        if what == "upload":
            return self._upload()
        if what in ("again", "reuse") and self._sent:
            first = chance.choice(self._sent)
            if what == "again":
                return [structs.replace(first, id=self._id(), why=f"again {first.id}")]
            ask = self._ask(first.to, why=f"reuse {first.id}")
            return [structs.replace(ask, key=first.key)]
        ask = self._ask(what if what in (*ENTITIES, "stock", "prices") else "orders")
        self._sent.append(ask)
        return [ask]

    def _id(self) -> str:
        self._number += 1
        return f"{self._name}/{self._number}"

    def _ask(self, to: str, why: str = "new") -> Ask:
        id_ = self._id()
        body, refused = self._body(to, id_)
        return Ask(id_, self._tenant, to, id_, body, refused, why=why)

    def _upload(self) -> list[Ask]:
        """An opening, chunks in any order and some of them again, and an end: complete, or cancelled and ignored."""
        chance, opening, entity = self._chance, self._id(), self._chance.choice(ENTITIES)
        asks = [Ask(opening, self._tenant, "open", opening, json.dumps({"entity": entity, "name": opening}))]
        chunks = []
        for number in range(1, chance.randrange(2, 5)):
            id_ = self._id()
            body, refused = self._body(entity, id_)
            chunks.append(Ask(id_, self._tenant, "chunk", "", body, refused, opening, number))
        numbers = len(chunks)
        chunks += [
            structs.replace(one, id=self._id(), why=f"again {one.id}") for one in chunks if chance.random() < 0.3
        ]
        chance.shuffle(chunks)
        id_ = self._id()
        if chance.random() < 0.25:
            cancel = Ask(id_, self._tenant, "cancel", "", "", upload=opening)
            return [*asks, *chunks[:1], cancel, *chunks[1:]]
        complete = Ask(id_, self._tenant, "complete", "", json.dumps({"chunks": numbers}), upload=opening)
        return [*asks, *chunks, complete]

    def _body(self, to: str, id_: str) -> tuple[str, dict[int, str]]:
        lines: list[str] = []
        refused: dict[int, str] = {}
        for n in range(1, self._chance.randrange(2, self._rows + 1)):
            row = getattr(self, f"_{to}")(f"{id_}#{n}")
            if self._chance.random() < 0.04:
                refused[n] = self._spoil(to, row)
            lines.append(json.dumps(row) if refused.get(n) != "malformed_json" else json.dumps(row)[:-2])
        return "".join(line + "\n" for line in lines), refused

    def _spoil(self, to: str, row: Row) -> str:
        """Make a row one that the gateway must refuse; return the code."""
        if self._chance.random() < 0.3:
            return "malformed_json"
        field = {"orders": "total_amount", "products": "price", "prices": "new_price"}.get(to)
        if field:
            row[field] = "5.005"
            return "too_many_decimals"
        del row["customer_id" if to == "customers" else "product_id"]
        return "missing_field"

    def _some(self, kind: str) -> str:
        return f"{kind[0].upper()}-{self._chance.randrange(_IDS[kind])}"

    def _moment(self, odds: float) -> str | None:
        """Now and then a time around the run; sometimes one in the far future, which must freeze nothing."""
        chance = self._chance
        if chance.random() >= odds:
            return None
        if chance.random() < 0.1:
            return "2099-01-01T00:00:00Z"
        return (self._began + _LATE * chance.uniform(-1, 1)).isoformat(timespec="milliseconds")

    def _customers(self, origin: str) -> Row:
        chance, id_ = self._chance, self._some("customers")
        row: Row = {"customer_id": id_, "name": f"Name {chance.randrange(1000)}", "attributes": {"from": origin}}
        if chance.random() < 0.7:
            row["email"] = f"{id_}@{chance.randrange(100)}.example"
        if chance.random() < 0.3:
            row["phone"] = f"+49 {chance.randrange(10**6)}"
        return row | self._optional(country=chance.choice(("DE", "FR", None)), updated_at=self._moment(0.3))

    def _products(self, origin: str) -> Row:
        chance = self._chance
        row: Row = {"product_id": self._some("products"), "name": f"Thing {chance.randrange(1000)}"}
        row |= {"price": self._money(chance.randrange(10**6)), "attributes": {"from": origin}}
        if chance.random() < 0.15:
            row["sku"] = f"SKU-{chance.randrange(25)}"
        if chance.random() < 0.5:
            row["currency"] = "ZZZ" if chance.random() < 0.05 else chance.choice(("EUR", "USD"))
        if chance.random() < 0.2:
            row["active"] = chance.random() < 0.5
        return row | self._optional(category=chance.choice(("a", "b", None)), updated_at=self._moment(0.3))

    def _orders(self, origin: str) -> Row:
        chance = self._chance
        items: list[Row] = [
            {"product_id": self._some("products"), "quantity": chance.randrange(1, 5), "unit_price": cents}
            for cents in (chance.randrange(1, 10**5) for _ in range(chance.randrange(4)))
        ]
        total = sum(item["quantity"] * item["unit_price"] for item in items) or chance.randrange(10**6)
        if chance.random() < 0.05:
            total += 1  # wrong where there are items
        row: Row = {
            "external_order_id": self._some("orders"),
            "total_amount": self._money(total),
            "currency": "EUX" if chance.random() < 0.03 else "EUR",
            "order_status": chance.choice(_STATUSES),
            "order_date": self._moment(1.1) or "",
            "note": {"from": origin},
        }
        if items:
            row["items"] = [item | {"unit_price": self._money(item["unit_price"])} for item in items]
        if chance.random() < 0.7:
            row |= {
                "customer_id": self._some("customers"),
                "customer_name": "Somebody",
                "customer_email": "a@b.example",
            }
        return row | self._optional(updated_at=self._moment(0.3))

    def _stock(self, origin: str) -> Row:
        chance, kind = self._chance, self._chance.choice(_KINDS)
        quantity = chance.randrange(-5, 10) if kind == "adjusted" else chance.randrange(0, 10)
        row: Row = {"product_id": self._some("products"), "kind": kind, "quantity": quantity}
        if chance.random() < 0.4:  # some ids are the client's own, some come from several
            row["event_id"] = origin if chance.random() < 0.8 else f"m-{chance.randrange(300)}"
        if chance.random() < 0.05:
            row["expected_quantity"] = chance.randrange(10)
        return row | self._optional(occurred_at=self._moment(0.2))

    def _prices(self, origin: str) -> Row:
        chance, cents = self._chance, self._chance.choice((100, 100, 102, 95, 110, 250, 1_000, 10_000, 0))
        row: Row = {"product_id": self._some("products"), "new_price": self._money(cents), "event_id": origin}
        if chance.random() < 0.3:
            row["currency"] = chance.choice(("EUR", "EUR", "USD"))
        return row | {"source": "chaos"} | self._optional(occurred_at=self._moment(0.15))

    def _money(self, cents: int) -> str | float:
        return f"{cents // 100}.{cents % 100:02d}" if self._chance.random() < 0.8 else cents / 100

    @staticmethod
    def _optional(**fields: Any) -> Row:
        return {name: value for name, value in fields.items() if value is not None}
