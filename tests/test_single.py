"""The short way of one JSON event: who takes it, and that nobody can tell from the message or the answer."""

import json
import re
import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import confluent_kafka
import httpx
import pytest
from gateways import PRODUCT
from pipeline import Pipeline, eventually
from shop import ORDER, problem
from test_recovery import log_of

from deploy.broker import Broker, free_port
from deploy.supervisor import Child, Supervisor
from gateway import idempotency
from producers import admin, tenants
from producers.tenants import Limits, Tenant
from schemas import envelope

ROWS: dict[str, dict[str, Any]] = {
    "orders": ORDER | {"external_order_id": "A-1", "items": [{"product_id": "P", "quantity": 1, "unit_price": 12.5}]},
    "products": PRODUCT | {"attributes": {"colour": "red"}},
    "customers": {"customer_id": "C-1", "name": "Zoë", "updated_at": "2026-01-31T12:00:00+01:00"},
}
BODIES = {entity: json.dumps(row).encode() for entity, row in ROWS.items()}
JSON = {"Content-Type": "application/json"}
NO_LONG_WAY = """
from gateway import publishing
async def publish(self, body): raise ZeroDivisionError("the long way")
publishing.Publishing.publish = publish
"""
HURRIED = """
from gateway import __main__, bodies
bodies._BODY_S, __main__.IDLE_S = 0.5, 5
"""


class Merchant:
    """A tenant with no limit, or those given, on the gateway of a pipeline."""

    def __init__(self, pipeline: Pipeline, limits: Limits = Limits(0, 0)) -> None:
        made, self.key = tenants.with_new_key(Tenant(f"shop-{secrets.token_hex(4)}", "A shop", limits=limits))
        tenants.put(pipeline.settings, [made])
        self.http, self.settings, self.tenant = pipeline.http, pipeline.settings, made.tenant_id
        eventually(lambda: self.send(b"", **{"Content-Type": "x"}).status_code == 400)

    def path(self, entity: str) -> str:
        return f"/api/v1/tenants/{self.tenant}/ingest/{entity}"

    def send(self, body: Any, entity: str = "orders", path: str = "", **headers: str) -> httpx.Response:
        """Without X-API-Key where another key is among the headers."""
        known = JSON if "Authorization" in headers else JSON | {"X-API-Key": self.key}
        return self.http.post(path or self.path(entity), content=body, headers=known | headers)

    def connection(self) -> socket.socket:
        return socket.create_connection((self.settings.gateway_host, self.settings.gateway_port), timeout=5)

    def head(self, *more: str, entity: str = "orders") -> bytes:
        known = ("Host: x", f"X-API-Key: {self.key}", "Content-Type: application/json")
        return "\r\n".join((f"POST {self.path(entity)} HTTP/1.1", *known, *more, "", "")).encode()


def answered(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    """Status and body of the next answer."""
    raw = b""
    while b"\r\n\r\n" not in raw:
        raw += (part := connection.recv(1))
        assert part, raw
    length = int(re.search(rb"content-length: (\d+)", raw)[1])  # type: ignore[index]
    body = b""
    while len(body) < length:
        body += connection.recv(length - len(body))
    return int(raw.split()[1]), json.loads(body)


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A gateway whose long way is cut: what it accepts took the short one, and the others are a 500."""
    with Pipeline(tmp_path_factory.mktemp("cut")) as pipeline:
        pipeline.start("gateway", patch=NO_LONG_WAY)
        yield pipeline


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A gateway that hurries its clients, and nobody who reads what it publishes."""
    with Pipeline(tmp_path_factory.mktemp("alone")) as pipeline:
        pipeline.start("gateway", patch=HURRIED)
        yield pipeline


def test_plain_events_take_the_short_way(cut: Pipeline) -> None:
    shop = Merchant(cut)
    for entity, body in BODIES.items():
        for path in (shop.path(entity), shop.path(entity) + "/", shop.path(entity).replace("shop-", "%73hop%2D")):
            answer = shop.send(body, path=path)
            assert answer.status_code == 202, (path, answer.text)
            assert answer.json()["accepted"] == 1
            assert len(answer.headers["idempotency-key"]) == 24
            assert answer.headers["content-type"] == "application/json"
    assert shop.send(BODIES["orders"], Authorization=f"Bearer {shop.key}").status_code == 202
    assert shop.send(b" \n" + BODIES["orders"] + b"\r\n ").status_code == 202
    assert shop.send(BODIES["orders"], **{"Content-Type": "application/json; charset=utf-8"}).status_code == 202
    assert re.search(
        r'^tillstream_requests_total{route="ingest",status="202",tenant="[^"]+"} 12\.0$',
        shop.http.get("/metrics").text,
        re.MULTILINE,
    )


def test_everything_else_takes_the_long_way(cut: Pipeline) -> None:
    shop, limited, few = Merchant(cut), Merchant(cut, Limits(100, 0)), Merchant(cut, Limits(0, 100))
    order = BODIES["orders"]
    assert few.send(order).status_code == 202  # orders are of no product
    for merchant, body, entity, query, headers in (
        (limited, order, "orders", "", {}),
        (few, BODIES["products"], "products", "", {}),
        (shop, order, "orders", "", {"Content-Type": "application/x-ndjson"}),
        (shop, order, "orders", "", {"Idempotency-Key": "mine"}),
        (shop, order, "orders", "", {"Content-Encoding": "identity"}),
        (shop, order, "orders", "?on_error=skip", {}),
        (shop, b"\xef\xbb\xbf" + order, "orders", "", {}),
        (shop, order[:-1] + b', "gift": true}', "orders", "", {}),
        (shop, order[:-1] + b', "total_amount": -1}', "orders", "", {}),
        (shop, order + b"{}", "orders", "", {}),
        (shop, order + b" " * 70_000, "orders", "", {}),
    ):
        path = merchant.path(entity) + query
        answer = merchant.send(body, path=path, Connection="close", **headers)  # which a 500 does anyway
        assert (answer.status_code, answer.json()["code"]) == (500, "internal_error"), (body[-80:], query, headers)


def test_both_ways_publish_the_same_message_and_answer_alike(alone: Pipeline) -> None:
    shop, traced = Merchant(alone), {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
    pairs = []
    for entity, body in BODIES.items():
        for more in ({}, traced, {"traceparent": "nonsense"}):
            short = shop.send(body, entity, **more)
            long = shop.send(body, entity, **more, **{"Idempotency-Key": short.headers["idempotency-key"]})
            assert (long.status_code, long.content) == (short.status_code, short.content) == (202, long.content)
            assert {**long.headers, "date": ""} == {**short.headers, "date": ""}
            assert [*long.headers] == [*short.headers]
            pairs.append(short.json()["event_ids"])
    by_id: dict[str, list[confluent_kafka.Message]] = {}
    for message in log_of(alone, "ingestion"):
        by_id.setdefault(dict(message.headers())["ce_id"].decode(), []).append(message)
    for [event_id] in pairs:
        assert envelope.issued(alone.settings.secret, shop.tenant, event_id)
        one, other = by_id[event_id]
        assert (one.key(), one.value(), one.partition()) == (other.key(), other.value(), other.partition())
        first, second = ([(n, v) for n, v in each.headers() if n != "ce_time"] for each in (one, other))
        assert first == second
        assert [n for n, _ in one.headers()] == [n for n, _ in other.headers()]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "empty_body"), (b"nonsense", 422, "rows_rejected"), (b"[]", 422, "rows_rejected"),
        (b"\xff", 422, "rows_rejected"), (b'{"external_order_id": "\\u0000"}', 422, "rows_rejected"),
        (BODIES["orders"].replace(b"EUR", b"eur"), 422, "rows_rejected"), (b"[" * 10_000, 422, "rows_rejected"),
        (BODIES["orders"][:-1] + b', "gift": "' + b"x" * 500_000 + b'"}', 422, "rows_rejected"),
        (b" " * 17_000_000, 413, "body_too_large"), (b"\n" * 100_001, 413, "too_many_lines"),
    ],
    ids=lambda value: repr(value)[:30],
)  # fmt: skip
def test_a_wrong_body_is_answered_as_ever(alone: Pipeline, body: bytes, status: int, code: str) -> None:
    shop = Merchant(alone)
    short, long = shop.send(body), shop.send(body, **{"Idempotency-Key": "mine"})
    one, other = problem(short, status, code), problem(long, status, code)
    assert (one.pop("rejected_ids", None) is None) == (other.pop("rejected_ids", None) is None)  # they follow the key
    assert one == other
    assert len(short.headers["idempotency-key"]) == 24


def test_who_may_not_is_answered_as_ever(alone: Pipeline) -> None:
    shop, other = Merchant(alone), Merchant(alone)
    body, unknown = BODIES["orders"], shop.path("orders").replace(shop.tenant, "nobody")
    problem(shop.send(body, **{"X-API-Key": "ts_wrong"}), 401, "invalid_key")
    problem(shop.send(body, Authorization="Basic x"), 401, "missing_key")
    problem(shop.send(body, path=other.path("orders")), 403, "wrong_tenant")
    problem(shop.send(body, path=unknown), 404, "unknown_tenant")
    problem(shop.send(body, "refunds"), 404, "not_found")
    problem(shop.http.put(shop.path("orders"), content=body, headers=JSON), 405, "method_not_allowed")
    for path in ("//", "/x", "%2Fx"):
        problem(shop.send(body, path=shop.path("orders") + path), 404, "not_found")


def test_the_first_of_several_headers_counts(alone: Pipeline) -> None:
    shop, body = Merchant(alone), BODIES["orders"]
    length = f"Content-Length: {len(body)}"
    for extra, status in (
        ("X-API-Key: ts_wrong", 202), ("Content-Type: application/x-ndjson", 202), ("Idempotency-Key: mine", 202),
    ):  # fmt: skip
        with shop.connection() as connection:
            connection.sendall(shop.head(extra, length) + body)
            assert answered(connection)[0] == status
    with shop.connection() as connection:
        wrong = shop.head(length).replace(b"X-API-Key:", b"X-API-Key: ts_wrong\r\nX-API-Key:")
        connection.sendall(wrong + body)
        assert answered(connection)[1]["code"] == "invalid_key"


def test_a_body_in_pieces_is_taken(alone: Pipeline) -> None:
    shop, body = Merchant(alone), BODIES["orders"]
    with shop.connection() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pieces = [body[at : at + 40] for at in range(0, len(body), 40)]
        chunks = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces] + [b"0\r\n\r\n"]
        chunked, counted = shop.head("Transfer-Encoding: chunked"), shop.head(f"Content-Length: {len(body)}")
        for sent in (
            [chunked + b"".join(chunks)],
            [chunked, *chunks],
            [counted, *pieces],
            [counted[:50], counted[50:] + body],
        ):
            for part in sent:
                connection.sendall(part)
                time.sleep(0.01)  # so that each is a read of its own
            status, answer = answered(connection)
            assert (status, answer["accepted"]) == (202, 1), sent


def test_a_body_that_does_not_come_is_given_up(alone: Pipeline) -> None:
    shop = Merchant(alone)
    for begun in (b"", BODIES["orders"][:20]):
        with shop.connection() as connection:
            connection.sendall(shop.head("Content-Length: 100") + begun)
            status, answer = answered(connection)
            assert (status, answer["code"]) == (408, "body_too_slow")


def test_requests_that_do_not_wait_for_answers_get_them_in_order(alone: Pipeline) -> None:
    shop = Merchant(alone)
    bodies = [json.dumps(ROWS["orders"] | {"total_amount": "1.00" if n % 3 else "-1"}).encode() for n in range(9)]
    with shop.connection() as connection:
        connection.sendall(b"".join(shop.head(f"Content-Length: {len(body)}") + body for body in bodies))
        assert [answered(connection)[0] for _ in bodies] == [202 if n % 3 else 422 for n in range(9)]


def test_a_connection_is_closed_when_it_has_been_idle_for_long(alone: Pipeline) -> None:
    shop, body = Merchant(alone), BODIES["orders"]
    request = shop.head(f"Content-Length: {len(body)}") + body
    with shop.connection() as connection:
        for wait_s in (3.0, 3.0, 8.0):
            connection.sendall(request)
            assert answered(connection)[0] == 202
            connection.settimeout(wait_s)
            since = time.monotonic()
            if wait_s < 5:
                with pytest.raises(TimeoutError):
                    connection.recv(1)
            else:
                assert connection.recv(1) == b""
                assert 4 < time.monotonic() - since < 7


def test_while_kafka_is_away_an_event_is_answered_as_ever(own_pipeline: Pipeline, tmp_path: Path) -> None:
    broker = Broker(tmp_path / "kafka", port=free_port())
    with Supervisor() as supervisor:
        child = supervisor.add(Child("kafka", broker.command, tmp_path / "kafka.log", stop_within=broker.stop_within))
        broker.wait_ready(child.alive)
        own_pipeline.settings = own_pipeline.settings_with(
            kafka_bootstrap_servers=broker.bootstrap_servers, delivery_timeout_s=2.0
        )
        admin.ensure(own_pipeline.settings)
        own_pipeline.start("gateway")
        shop = Merchant(own_pipeline)
        assert shop.send(BODIES["orders"]).status_code == 202
        child.stop()
        unknown = shop.send(BODIES["orders"])  # sent, and not acknowledged
        problem(unknown, 503, "kafka_unavailable")
        assert unknown.headers["retry-after"] == "2"
        assert len(unknown.headers["idempotency-key"]) == 24
        eventually(lambda: own_pipeline.http.get("/readyz").status_code == 503)
        quick = shop.send(BODIES["orders"])
        problem(quick, 503, "kafka_unavailable")
        assert quick.elapsed.total_seconds() < 1
        child.start()
        broker.wait_ready(child.alive)
        eventually(lambda: shop.send(BODIES["orders"]).status_code == 202)
        again = shop.send(BODIES["orders"], **{"Idempotency-Key": unknown.headers["idempotency-key"]})
        assert again.status_code == 202
        assert re.search(r"^tillstream_inflight_bytes 0\.0$", shop.http.get("/metrics").text, re.MULTILINE)


def test_made_keys_are_long_and_never_the_same() -> None:
    keys = {idempotency.new_key() for _ in range(1_000)}
    assert len(keys) == 1_000
    assert {len(key) for key in keys} == {24}
