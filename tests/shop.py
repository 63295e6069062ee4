"""A tenant of the shared pipeline that keeps count of what the gateway accepted from it."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import zstandard
from pipeline import Pipeline

ROLES = ("gateway", "streams", "sinks")
ZSTD = zstandard.ZstdCompressor()
BY_ID = " WHERE tenant_id = %s AND external_order_id = %s"
ORDER = {"total_amount": "12.50", "currency": "EUR", "order_status": "paid", "order_date": "2026-01-31T23:59:59Z"}


class Shop:
    """A tenant of the shared pipeline that remembers which of its orders were accepted."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.tenant, self.key = pipeline.tenant()
        self.accepted: set[str] = set()
        self._made = 0

    def order(self, **fields: Any) -> bytes:
        """A line with an id of its own that is right but for `fields`."""
        return self.raw(**{name: json.dumps(value) for name, value in fields.items()})

    def raw(self, **fields: str) -> bytes:
        """The same, of fields whose values are JSON text already."""
        self._made += 1
        made = {name: json.dumps(value) for name, value in ORDER.items()} | {"external_order_id": f'"A-{self._made}"'}
        return ("{" + ", ".join(f'"{name}": {value}' for name, value in (made | fields).items()) + "}\n").encode()

    def post(self, body: Any, query: str = "", entity: str = "orders", **headers: Any) -> httpx.Response:
        return self.pipeline.post(self.tenant, self.key, entity, body, query, **headers)

    def takes(self, body: Any, *good: bytes, query: str = "", **headers: Any) -> dict[str, Any]:
        """The answer to a body of which exactly the lines `good` are to become rows."""
        answer = self.post(body, query, **headers)
        assert answer.status_code == 202, answer.text
        assert answer.headers["idempotency-key"]
        taken: dict[str, Any] = answer.json()
        assert (taken["accepted"], bool(taken["event_ids"])) == (len(good), bool(good))
        self.accepted |= {json.loads(line)["external_order_id"] for line in good}
        return taken

    def refuses(self, body: Any, status: int, code: str, query: str = "", **headers: Any) -> dict[str, Any]:
        answer = self.post(body, query, **headers)
        assert answer.headers["idempotency-key"]
        return problem(answer, status, code)


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """What an error answer says, which is complete (RFC 9457 and DESIGN §7)."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("application/problem+json")
    said: dict[str, Any] = answer.json()
    assert (said["code"], said["status"], said["retriable"]) == (code, status, status in (429, 503)), said
    assert len(said["detail"]) > 5
    assert said["title"]
    return said


@pytest.fixture(scope="module")
def shop(pipeline: Pipeline) -> Iterator[Shop]:
    """At the end all is in the ledger, what was accepted is exactly what is stored, and no process had to restart."""
    shop = Shop(pipeline)
    yield shop
    pipeline.drained()
    stored = {row[0] for row in pipeline.sql("SELECT external_order_id FROM orders WHERE tenant_id = %s", shop.tenant)}
    assert stored == shop.accepted
    assert [(role, pipeline.children[role].restarts) for role in ROLES] == [(role, 0) for role in ROLES]
