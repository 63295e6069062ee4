"""A tenant that has rows in every table, and goes on sending."""

import json
import random
from typing import Any

from pipeline import Pipeline

from producers import tenants
from producers.tenants import Policies, Tenant

ORDER = {"total_amount": "10.00", "currency": "EUR", "order_status": "paid", "order_date": "2026-01-31T23:59:59Z"}


class Merchant:
    """Sends rows of all kinds, some of them twice and some of them wrong, over HTTP."""

    def __init__(self, pipeline: Pipeline, seed: int = 7) -> None:
        self.pipeline = pipeline
        self.tenant, self.key = pipeline.tenant()
        self._rng = random.Random(seed)
        self._sent = 0

    def post(self, path: str, *rows: Any, **headers: str) -> dict[str, Any]:
        """POST lines to a path of the tenant."""
        body = b"\n".join(json.dumps(row).encode() for row in rows)
        named = {"X-API-Key": self.key} | {name.replace("_", "-"): value for name, value in headers.items()}
        answer = self.pipeline.http.post(f"/api/v1/tenants/{self.tenant}/{path}", content=body, headers=named)
        assert answer.status_code == 202, answer.text
        said: dict[str, Any] = answer.json()
        return said

    def orders(self, *numbers: int, **fields: Any) -> None:
        """Orders `A-<n>`, each with two items."""
        items = [{"product_id": f"P-{n}", "quantity": 1, "unit_price": "5.00"} for n in (1, 2)]
        self.post("ingest/orders", *(ORDER | {"external_order_id": f"A-{n}", "items": items} | fields for n in numbers))

    def everything(self) -> None:
        """Something for each table of tenants."""
        self.orders(*range(20))
        self.orders(3, 4, order_status="shipped")
        self.post("ingest/orders", ORDER | {"external_order_id": "wrong", "items": [
            {"product_id": "P-1", "quantity": 1, "unit_price": "1.00"}]})  # fmt: skip
        self.post("ingest/customers", *({"customer_id": f"C-{n}", "name": f"N {n}", "vip": True} for n in range(10)))
        self.post("ingest/products", *self._products())
        self.post("ingest/products", *self._products(), Idempotency_Key="twice")
        self.post("ingest/products", *self._products(), Idempotency_Key="twice")
        self.policy(Policies(("EUR",), "at_least"))
        self.orders(30, 31)
        self.post("ingest/orders", ORDER | {"external_order_id": "A-32", "currency": "USD"})
        self.post("stock-events", *({"product_id": f"P-{n}", "kind": "received", "quantity": n} for n in range(10)))
        self.post("stock-events", {"product_id": "P-1", "kind": "sold", "quantity": 99})
        self.post("price-events", *({"product_id": f"P-{n}", "new_price": f"{n}.50"} for n in range(1, 10)))
        self.post("price-events", {"product_id": "P-1", "new_price": "-1"}, {"product_id": "P-2", "new_price": "250"})
        self._limits("P-1")
        self._upload()

    def more(self) -> None:
        """New rows of some kind: nothing that was sent before changes, but for stock of P-1 to P-3."""
        self._sent += 1
        n = self._sent
        match self._rng.randrange(4):
            case 0:
                self.orders(1_000 + n)
            case 1:
                self.post("ingest/customers", {"customer_id": f"D-{n}", "name": f"N {n}"})
            case 2:
                self.post("stock-events", {"product_id": f"P-{n % 3 + 1}", "kind": "received", "quantity": 1})
            case _:
                self.post("price-events", {"product_id": f"Q-{n}", "new_price": "3"})

    def policy(self, policies: Policies) -> None:
        """Judge rows by these from here on."""
        tenants.change(self.pipeline.settings, self.tenant, lambda known: _with(known, policies))

    def _products(self) -> list[dict[str, Any]]:
        return [
            {"product_id": f"P-{n}", "sku": f"S-{self._rng.randrange(12)}", "name": "x", "price": n} for n in range(10)
        ]

    def _limits(self, product: str) -> None:
        url = f"/api/v1/tenants/{self.tenant}/products/{product}/price-limits"
        answer = self.pipeline.http.put(url, json={"floor": "0.50", "ceiling": 12}, headers={"X-API-Key": self.key})
        assert answer.status_code == 202, answer.text

    def _upload(self) -> None:
        http, headers = self.pipeline.http, {"X-API-Key": self.key}
        url = f"/api/v1/tenants/{self.tenant}/uploads"
        opened = http.post(url, json={"entity": "orders", "name": "o.ndjson"}, headers=headers)
        row = json.dumps(ORDER | {"external_order_id": "U-1"})
        put = http.put(f"{url}/{opened.json()['token']}/chunks/1", content=row, headers=headers)
        done = http.post(f"{url}/{opened.json()['token']}/complete", json={"chunks": 1}, headers=headers)
        assert (opened.status_code, put.status_code, done.status_code // 100) == (201, 202, 2)


def _with(known: Tenant | None, policies: Policies) -> Tenant:
    assert known is not None
    return Tenant(known.tenant_id, known.name, known.currency, known.keys, known.limits, policies)
