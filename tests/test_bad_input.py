"""Bad input gets a clear error and loses nothing: what was good beside it becomes a row, and everything goes on."""

import asyncio
import gzip
import json
import socket
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx
import psutil
import pytest
import zstandard
from pipeline import Pipeline, eventually

from producers import tenants
from producers.client import Producer
from schemas import codec, envelope, topics

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


# Bodies


def test_a_line_of_50_mb_is_refused_whether_its_length_is_declared_or_not(shop: Shop) -> None:
    line = shop.order(gift="x" * 50_000_000)
    shop.refuses(line, 413, "body_too_large")
    shop.refuses((line[at : at + 1_000_000] for at in range(0, len(line), 1_000_000)), 413, "body_too_large")


def test_a_line_over_its_limit_is_refused_alone(shop: Shop) -> None:
    good = shop.order(), shop.order()
    [error] = shop.takes(good[0] + shop.order(gift="x" * 500_000) + good[1], *good)["errors"]
    assert (error["line"], error["code"]) == (2, "line_too_long")


@pytest.mark.parametrize("body", [b"", b"\n\r\n \t\n", b"\xef\xbb\xbf", gzip.compress(b"")], ids=repr)
def test_a_body_without_a_row_is_refused(shop: Shop, body: bytes) -> None:
    headers = {"Content_Encoding": "gzip"} if body[:2] == b"\x1f\x8b" else {}
    shop.refuses(body, 400, "empty_body", **headers)


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "zstd", "identity"])
def test_a_compressed_body_is_taken_whole(shop: Shop, encoding: str) -> None:
    good = [shop.order() for _ in range(3)]
    packs: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "zstd": ZSTD.compress, "identity": bytes}
    pack = packs[encoding.lower()]
    shop.takes(pack(b"".join(good)), *good, Content_Encoding=encoding)
    two = shop.order(), shop.order()
    shop.takes(pack(two[0]) + pack(two[1]), *two, Content_Encoding=encoding)  # `cat a.gz b.gz`: RFC 1952 allows it


def test_zstd_that_was_streamed_without_its_length_is_taken(shop: Shop) -> None:
    stream, good = ZSTD.compressobj(), shop.order()
    shop.takes(stream.compress(good) + stream.flush(), good, Content_Encoding="zstd")


@pytest.mark.parametrize("damage", ["not", "cut", "cut at the end", "flipped", "followed by garbage"])
@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_broken_compressed_body_is_refused_whole(shop: Shop, encoding: str, damage: str) -> None:
    plain = b"".join(shop.order() for _ in range(200))
    packed = (
        zstandard.ZstdCompressor(write_checksum=True).compress(plain) if encoding == "zstd" else gzip.compress(plain)
    )
    middle = len(packed) // 2
    broken = {
        "not": plain,
        "cut": packed[:middle],
        "cut at the end": packed[:-1],
        "flipped": packed[:middle] + bytes([packed[middle] ^ 0xFF]) + packed[middle + 1 :],
        "followed by garbage": packed + b"garbage",
    }[damage]
    shop.refuses(broken, 400, "broken_encoding", Content_Encoding=encoding)


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, zstd", "x"])
def test_an_unknown_encoding_is_refused(shop: Shop, encoding: str) -> None:
    shop.refuses(shop.order(), 415, "unknown_encoding", Content_Encoding=encoding)


def bomb(kind: str) -> Iterator[bytes]:
    """Much of what `kind` says, in a small body save for the padding, whose length is not declared."""
    pack: Any = ZSTD.compressobj() if kind == "zstd" else zlib.compressobj(wbits=31)
    if kind == "gzip of blank lines":
        yield from (pack.compress(b"\n" * 4_000_000) for _ in range(4))
    elif kind != "gzip and padding":
        yield from (pack.compress(b" " * 1_000_000) for _ in range(100))
    yield pack.flush()
    if kind == "gzip and padding":
        yield from (bytes(1_000_000) for _ in range(60))


@pytest.mark.parametrize("kind", ["gzip", "zstd", "gzip of blank lines", "gzip and padding"])
def test_a_bomb_is_refused_and_takes_no_memory(shop: Shop, kind: str) -> None:
    gateway = psutil.Process(shop.pipeline.children["gateway"].pid)
    body = bomb(kind) if kind == "gzip and padding" else b"".join(bomb(kind))
    before = peak = gateway.memory_info().rss
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(shop.post, body, Content_Encoding=kind[:4])
        while wait([answer], timeout=0.002).not_done:
            peak = max(peak, gateway.memory_info().rss)
    assert answer.result().status_code in (400, 413)
    problem(answer.result(), answer.result().status_code, answer.result().json()["code"])
    assert peak - before < 4 * shop.pipeline.settings.max_body_bytes


def test_a_client_that_hangs_up_holds_no_memory_and_stores_nothing(shop: Shop) -> None:
    settings = shop.pipeline.settings
    head = f"POST /api/v1/tenants/{shop.tenant}/ingest/orders HTTP/1.1\r\nHost: x\r\nX-API-Key: {shop.key}\r\n"
    for _ in range(12):  # together more than max_inflight_bytes
        with socket.create_connection((settings.gateway_host, settings.gateway_port)) as client:
            client.sendall(head.encode() + b"Content-Length: 15000000\r\n\r\n" + shop.order())
    good = shop.order()
    eventually(lambda: shop.post(b"").status_code == 400)
    shop.takes(good, good)


# Who may


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "missing_key"),
        ({"X_API_Key": "ts_wrong"}, "invalid_key"),
        ({"X_API_Key": b"\xff\xfe"}, "invalid_key"),
        ({"Authorization": "Bearer ts_wrong"}, "invalid_key"),
        ({"Authorization": "Bearer"}, "missing_key"),
        ({"Authorization": "Basic dHNfd3Jvbmc6"}, "missing_key"),
    ],
    ids=repr,
)
def test_without_a_right_key_nobody_gets_in(shop: Shop, headers: dict[str, Any], code: str) -> None:
    answer = shop.post(shop.order(), **({"X_API_Key": ""} | headers))
    problem(answer, 401, code)
    assert answer.headers["www-authenticate"]  # RFC 9110, section 15.5.2
    assert answer.headers["idempotency-key"]


def test_a_key_opens_its_own_tenant_only(shop: Shop) -> None:
    _, other = shop.pipeline.tenant()
    shop.refuses(shop.order(), 403, "wrong_tenant", X_API_Key=other)
    for unknown in ("nobody", "a%00b", "%FF", "x" * 5_000):
        answer = shop.pipeline.post(unknown, shop.key, "orders", shop.order())
        assert answer.status_code in (401, 403, 404)
        problem(answer, answer.status_code, answer.json()["code"])


def test_a_bearer_token_is_a_key(shop: Shop) -> None:
    good = shop.order()
    shop.takes(good, good, X_API_Key="", Authorization=f"Bearer {shop.key}")


def test_a_revoked_key_stops_working(shop: Shop) -> None:
    tenant, key = tenants.with_new_key(tenants.Tenant(shop.pipeline.tenant()[0], "A shop"))
    tenants.put(shop.pipeline.settings, [tenant])
    post = shop.pipeline.post
    eventually(lambda: post(tenant.tenant_id, key, "orders", b"").status_code == 400)
    tenants.put(shop.pipeline.settings, [tenants.with_revoked_key(tenant, tenant.keys[0].key_id)])
    eventually(lambda: post(tenant.tenant_id, key, "orders", b"").status_code == 401)
    problem(post(tenant.tenant_id, key, "orders", shop.order()), 401, "revoked_key")


# Requests


@pytest.mark.parametrize("key", ["x" * 1_000, '""', b"\xff", "a b\tc"], ids=lambda key: repr(key)[:12])
def test_a_bad_idempotency_key_is_refused(shop: Shop, key: Any) -> None:
    problem(shop.post(shop.order(), Idempotency_Key=key), 400, "bad_idempotency_key")


def test_the_idempotency_key_sent_is_the_one_named(shop: Shop) -> None:
    for body in (b"", b"{}", shop.order(total_amount=-1)):
        assert shop.post(body, Idempotency_Key='"mine"').headers["idempotency-key"].strip('"') == "mine"
    assert shop.post(b"").headers["idempotency-key"] != shop.post(b"").headers["idempotency-key"]


@pytest.mark.parametrize(
    "query", ["?on_error=maybe", "?on_error=", "?validate_only=perhaps", "?on_error=skip&on_error=x"]
)
def test_a_bad_query_is_refused(shop: Shop, query: str) -> None:
    said = shop.refuses(shop.order(), 400, "bad_parameter", query)
    assert query[1:].split("=")[0] in said["detail"]


def test_reject_of_more_than_one_message_is_refused(shop: Shop) -> None:
    shop.refuses(b"".join(shop.order() for _ in range(1_001)), 413, "too_many_rows", "?on_error=reject")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_another_method_is_refused(shop: Shop, method: str) -> None:
    path = f"/api/v1/tenants/{shop.tenant}/ingest/orders"
    answer = shop.pipeline.http.request(method, path, headers={"X-API-Key": shop.key})
    problem(answer, 405, "method_not_allowed")
    assert "POST" in answer.headers["allow"]


def test_an_unknown_entity_or_path_is_not_found(shop: Shop) -> None:
    problem(shop.post(shop.order(), entity="invoices"), 404, "not_found")
    problem(shop.pipeline.http.get("/nothing/here"), 404, "not_found")


def test_a_trailing_slash_changes_nothing(shop: Shop) -> None:
    good = shop.order()
    assert shop.post(good, entity="orders/").status_code == 202
    shop.accepted.add(json.loads(good)["external_order_id"])


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8"])
def test_a_json_document_on_many_lines_is_one_row(shop: Shop, kind: str) -> None:
    good = shop.order()
    shop.takes(
        b"\xef\xbb\xbf" + json.dumps(json.loads(good), indent=2).replace("\n", "\r\n").encode(), good, Content_Type=kind
    )
    for body in (shop.order() + shop.order(), b"[" + shop.order() + b"]"):
        shop.refuses(body, 422, "rows_rejected", Content_Type=kind)


# Rows


def test_bad_lines_are_each_named_and_the_good_ones_taken(shop: Shop) -> None:
    good = [shop.order() for _ in range(4)]
    body = b"\xef\xbb\xbf" + good[0].replace(b"\n", b"\r\n") + b"\r\n" + b"nonsense\r\n" + good[1] + b"[1]\n \n"
    body += shop.order(total_amount=-1, items=7) + shop.raw(customer_name='"a\x00b"') + good[2]
    body += shop.order(order_status="lost").replace(b"lost", b"\xff") + good[3].rstrip()
    taken = shop.takes(body, *good)
    assert taken["rejected"] == 5
    assert [(error["line"], error["pointer"], error["code"]) for error in taken["errors"]] == [
        (3, "", "malformed_json"), (5, "", "not_an_object"), (7, "/total_amount", "negative_amount"),
        (7, "/items", "wrong_type"), (8, "", "malformed_json"), (10, "", "invalid_utf8"),
    ]  # fmt: skip
    assert all(error["detail"] for error in taken["errors"])


def test_a_body_of_bad_rows_is_refused_and_every_line_named(shop: Shop) -> None:
    said = shop.refuses(b"x\n" * 1_000, 422, "rows_rejected")
    assert [error["line"] for error in said["errors"]] == list(range(1, 1_001))
    said = shop.refuses(b"\n".join([b"[1]", b"", b"x"]), 422, "rows_rejected")
    assert [(error["line"], error["code"]) for error in said["errors"]] == [(1, "not_an_object"), (3, "malformed_json")]


BAD: list[tuple[str, str, str]] = [
    ("external_order_id", '""', "invalid_value"),
    ("external_order_id", '"' + "x" * 101 + '"', "invalid_value"),
    ("external_order_id", "7", "wrong_type"),
    ("total_amount", "-0.01", "negative_amount"),
    ("total_amount", "1e400", "out_of_range"),
    ("total_amount", "1e999999", "out_of_range"),
    ("total_amount", '"sNaN"', "out_of_range"),
    ("total_amount", '"1e9999999999999999999999"', "invalid_value"),
    ("total_amount", "10000000000", "out_of_range"),
    ("total_amount", "12.345", "too_many_decimals"),
    ("total_amount", "NaN", "malformed_json"),
    ("total_amount", "{}", "wrong_type"),
    ("currency", '"eur"', "invalid_value"),
    ("currency", r'"EUR\n"', "invalid_value"),
    ("order_status", '"nonsense"', "invalid_value"),
    ("order_date", '"0000-01-01T00:00:00Z"', "invalid_value"),
    ("order_date", '"2026-13-01T00:00:00Z"', "invalid_value"),
    ("order_date", '"1969-12-31T23:59:59Z"', "out_of_range"),
    ("order_date", '"2200-01-01T00:00:00Z"', "out_of_range"),
    ("order_date", '"2026-01-31T23:59:59"', "invalid_value"),
    ("order_date", "1769904000", "wrong_type"),
    ("items", '[{"product_id": "P", "quantity": 1099511627776, "unit_price": 1}]', "invalid_value"),
    ("items", '[{"product_id": "P", "quantity": 1, "unit_price": "sNaN"}]', "out_of_range"),
    ("customer_name", r'"a\u0000b"', "nul_character"),
    ("gift", r'{"a": ["\u0000"]}', "nul_character"),
    (r"gi\u0000ft", "1", "nul_character"),
    ("gift", r'"\ud800"', "malformed_json"),
    ("gift", "[" * 100_000, "malformed_json"),
]


@pytest.mark.parametrize(("field", "value", "code"), BAD, ids=[f"{name}={value[:24]}" for name, value, _ in BAD])
def test_a_bad_row_is_refused_alone(shop: Shop, field: str, value: str, code: str) -> None:
    good = shop.order()
    taken = shop.takes(shop.raw(**{field: value}) + good, good)
    assert taken["rejected"] == 1
    [error] = taken["errors"]
    assert (error["line"], error["code"]) == (1, code), error
    assert error["pointer"].startswith(f"/{field}") or code == "malformed_json"


@pytest.mark.parametrize("depth", [900, 955, 985, 1_100, 100_000])
@pytest.mark.parametrize(
    "row",
    [
        {"customer_id": "deep", "attributes": {"a": "@"}},
        {"product_id": "deep", "name": "x", "price": 1, "attributes": {"a": "@"}},
        ORDER | {"external_order_id": "deep", "gift": "@"},
    ],
    ids=["customers", "products", "orders"],
)
def test_deep_nesting_is_refused_or_kept(shop: Shop, row: dict[str, Any], depth: int) -> None:
    entity = {"customer_id": "customers", "product_id": "products"}.get(next(iter(row)), "orders")
    answer = shop.post(json.dumps(row).replace('"@"', "[" * depth + "]" * depth), entity=entity)
    assert answer.status_code in (202, 422)
    if entity == "orders" and answer.status_code == 202:
        shop.accepted.add("deep")


def test_numbers_that_grow_when_written_out_are_taken_or_refused_with_the_whole_body(shop: Shop) -> None:
    tenant, key = shop.pipeline.tenant()
    grown = '{"customer_id": "grown", "attributes": {"a": [' + ",".join(["1e15"] * 90_000) + "]}}"
    lines = [f'{{"customer_id": "C-{n}"}}' for n in range(1_000)] + [grown]
    answer = shop.pipeline.post(tenant, key, "customers", "\n".join(lines))
    assert answer.status_code in (202, 413, 422)
    shop.pipeline.drained()
    [(stored,)] = shop.pipeline.sql("SELECT count(*) FROM customers WHERE tenant_id = %s", tenant)
    assert stored == (answer.json()["accepted"] if answer.status_code == 202 else 0)


def test_what_looks_odd_and_is_right_is_kept_exactly(shop: Shop) -> None:
    fields = {
        "total_amount": "1e2",
        "customer_name": r'"\\u0000 \ud83d\ude00 Ærø"',
        "items": '[{"product_id": "P", "quantity": 1, "unit_price": 12.5}]',
        "gift": r'{"wrapped": true, "weight": 1.5, "big": 12345678901234567890123, "text": "\\u0000", "none": null}',
    }
    line = shop.raw(**fields)
    repeated = shop.order(gift=1)[:-2] + b', "gift": 2, "total_amount": "99.00"}'
    assert shop.takes(line + repeated, line, repeated)["rejected"] == 0
    query = "SELECT total_amount::text, customer_name, raw_payload FROM orders" + BY_ID

    def stored(line: bytes) -> Any:
        return eventually(lambda: shop.pipeline.sql(query, shop.tenant, json.loads(line)["external_order_id"]))

    assert stored(line) == [("100.00", "\\u0000 😀 Ærø", {"gift": json.loads(fields["gift"])})]
    assert stored(repeated) == [("99.00", None, {"gift": 2})]


def test_unknown_fields_join_the_attributes(shop: Shop) -> None:
    gift = {"weight": 1.5, "n": [1, None, True, "x"]}
    for entity, row in (
        ("customers", {"customer_id": "kept", "attributes": {"w": 2.5}, "gift": gift}),
        ("products", {"product_id": "kept", "name": "x", "price": 1, "attributes": {"w": 2.5}, "gift": gift}),
    ):
        assert shop.post(json.dumps(row), entity=entity).status_code == 202
        query = f"SELECT attributes FROM {entity} WHERE tenant_id = %s AND {entity[:-1]}_id = 'kept'"
        assert eventually(partial(shop.pipeline.sql, query, shop.tenant)) == [({"w": 2.5, "gift": gift},)]


def test_every_row_of_a_good_body_is_in_postgresql(shop: Shop) -> None:
    tenant, key = shop.pipeline.tenant()
    body = b"".join(shop.order() for _ in range(2_345))
    answer = shop.pipeline.post(tenant, key, "orders", body).json()
    assert (answer["accepted"], answer["rejected"], len(answer["event_ids"])) == (2_345, 0, 3)
    query = "SELECT count(*)::int FROM orders WHERE tenant_id = %s"
    eventually(lambda: shop.pipeline.sql(query, tenant) == [(2_345,)])


# Messages that did not come through the gateway


ROW: dict[str, Any] = dict.fromkeys(("customer_id", "customer_name", "customer_email", "raw_payload", "updated_at")) | {
    "line": 1, "total_amount": b"\x04\xe2", "currency": "EUR", "order_status": "paid",
    "order_date": 1_769_903_999_000_000, "items": [],
}  # fmt: skip
ITEM = {"product_id": "P", "quantity": 1, "unit_price": b"\x01"}
BAD_ROWS: dict[str, dict[str, Any]] = {
    "status": {"order_status": "nonsense"},
    "NUL in a name": {"customer_name": "a\x00b"},
    "NUL in an id": {"external_order_id": "a\x00b"},
    "NUL in a customer's id": {"customer_id": "a\x00b"},
    "empty id": {"external_order_id": ""},
    "long id": {"external_order_id": "x" * 101},
    "negative amount": {"total_amount": b"\xff"},
    "amount too large": {"total_amount": (10**14).to_bytes(7, "big")},
    "amount of 10,000 bytes": {"total_amount": b"\x01" * 10_000},
    "currency": {"currency": "eur"},
    "currency and a line end": {"currency": "EUR\n"},
    "before 1970": {"order_date": -1},
    "after 2199": {"order_date": 2**53},
    "no date at all": {"order_date": 2**63 - 1},
    "none either": {"order_date": -(2**63)},
    "updated far in the future": {"updated_at": 2**63 - 1},
    "updated far in the past": {"updated_at": -(2**63)},
    "payload no JSON": {"raw_payload": "nonsense"},
    "payload no object": {"raw_payload": "[1]"},
    "payload with NUL": {"raw_payload": r'{"a": "\u0000"}'},
    "payload with half a pair": {"raw_payload": r'{"a": "\ud800"}'},
    "payload with a huge number": {"raw_payload": '{"a": 1e200000}'},
    "payload deeply nested": {"raw_payload": "[" * 100_000},
    "quantity": {"items": [ITEM, ITEM | {"quantity": 0}]},
    "product of an item": {"items": [ITEM, ITEM | {"product_id": ""}]},
    "NUL in an item": {"items": [ITEM, ITEM | {"product_id": "a\x00b"}]},
    "price of an item": {"items": [ITEM, ITEM | {"unit_price": b"\xff"}]},
    "price of an item too large": {"items": [ITEM, ITEM | {"unit_price": b"\x01" * 9}]},
}
TYPE = "tillstream.orders.v1"


@dataclass(frozen=True)
class Bad:
    """A message that differs from a right one of two rows: its end in the ledger, and how it differs."""

    code: str | None
    headers: dict[str, bytes | None] = field(default_factory=dict)
    value: Callable[[bytes], bytes | None] = lambda value: value
    key: bytes | None = None
    inside: str | None = None
    shift: int = 0
    rows: int = 2


def two_blocks(value: bytes) -> bytes:
    """The same rows as two blocks of an Avro array, as a writer that streams makes them."""
    at = 11 + value[10] // 2  # frame, length of the tenant's id, the id
    half = (len(value) - at - 2) // 2
    return value[:at] + b"\x02" + value[at + 1 : at + 1 + half] + b"\x02" + value[at + 1 + half :]


BAD_MESSAGES: dict[str, Bad] = {
    "another tenant inside": Bad("foreign_tenant", inside="somebody-else"),
    "truncated": Bad("truncated", value=lambda value: value[:-3]),
    "cut in its schema": Bad("bad_framing", value=lambda value: value[:6]),
    "longer": Bad("trailing_bytes", value=lambda value: value + b"x"),
    "tombstone": Bad("empty_value", value=lambda value: None),
    "empty": Bad("empty_value", value=lambda value: b""),
    "JSON": Bad("bad_framing", value=lambda value: b'{"external_order_id": "x"}'),
    "of an unknown schema": Bad("unknown_schema", value=lambda value: b"\xc3\x01" + b"x" * 8 + value[10:]),
    "of a registry": Bad("no_registry", value=lambda value: b"\x00\x00\x00\x00\x01" + value[10:]),
    "text not UTF-8": Bad("truncated", value=lambda value: value.replace(b"paid", b"p\xffid")),
    "of 2^62 rows": Bad("truncated", value=lambda value: value[:11] + b"x" * (value[10] // 2) + b"\xff" * 8 + b"\x7f"),
    "no rows": Bad(None, rows=0),
    "unknown type": Bad("unknown_type", {"ce_type": b"tillstream.invoices.v1"}),
    "type of another topic": Bad("unknown_type", {"ce_type": b"tillstream.tenant.v1"}),
    "type of other rows": Bad("wrong_schema", {"ce_type": b"tillstream.customers.v1"}),
    "type not UTF-8": Bad("bad_header", {"ce_type": b"\xff"}),
    "no type": Bad("no_ce_type", {"ce_type": None}),
    "no headers": Bad("no_ce_type", {"": None}),
    "wrong partition": Bad("wrong_partition", shift=1),
    "empty key": Bad("no_key", key=b""),
    "key not UTF-8": Bad("bad_key", key=b"\xff\xfe"),
    "NUL in the key": Bad("bad_key", key=b"a\x00b"),
    "long key": Bad("bad_key", key=b"x" * 300),
    "count of rows": Bad("bad_header", {"ts-rows": b"x"}),
    "hash": Bad("bad_header", {"ts-hash": b"x"}),
    "no time": Bad("bad_header", {"ce_time": b"noon"}),
    "time without offset": Bad("bad_header", {"ce_time": b"2026-01-31T00:00:00"}),
    "time before year 1": Bad("bad_header", {"ce_time": b"0001-01-01T00:00:00+14:00"}),
    "time after year 9999": Bad("bad_header", {"ce_time": b"9999-12-31T23:59:59-14:00"}),
    "long id": Bad("bad_header", {"ce_id": b"x" * 300}),
    "NUL in the id": Bad("bad_header", {"ce_id": b"a\x00b"}),
    "wrong count of rows": Bad(None, {"ts-rows": b"5"}),
    "two blocks": Bad(None, value=two_blocks),
    "two blocks and the count of one": Bad(None, {"ts-rows": b"1"}, value=two_blocks),
    "no id": Bad(None, {"ce_id": None}),
    "only a type": Bad(None, dict.fromkeys(("ce_id", "ce_time", "ce_source", "ts-rows", "ts-hash", "content-type"))),
    "forged source": Bad(None, {"ts-src": b"elsewhere/0/0/0"}),
}


Line = tuple[str, str | None, int, int, int]


@pytest.fixture(scope="module")
def ledger(shop: Shop) -> dict[str, Line]:
    """What became of each batch of the two tables, all sent at once: outcome, code, rows, applied, rejected."""
    settings = shop.pipeline.settings
    topic, own = settings.named(topics.INGESTION), topics.partition_key(shop.tenant)
    at: dict[str, tuple[int, int]] = {}

    def rows(name: str, *changes: dict[str, Any]) -> list[dict[str, Any]]:
        return [ROW | {"external_order_id": f"{name} {n}"} | change for n, change in enumerate(changes)]

    async def send() -> None:
        async with Producer(settings) as producer:
            for name, change in BAD_ROWS.items():
                batch = rows(name, {}, change)
                offset = await producer.publish_batch(shop.tenant, "orders", batch, event_id=f"row {name}")
                at[name] = (topics.partition_of(own, settings.partitions), offset)
            for name, bad in BAD_MESSAGES.items():
                value = codec.encode(
                    TYPE, {"tenant_id": bad.inside or shop.tenant, "rows": rows(name, *[{}] * bad.rows)}
                )
                made = envelope.headers_of(
                    event_id=f"message {name}",
                    type=TYPE,
                    source="direct",
                    accepted_ms=1_769_903_999_000,
                    rows=bad.rows,
                    value=value,
                    traceparent=None,
                )
                headers: dict[str, bytes | None] = {**dict(made), **bad.headers}
                sent = [] if "" in headers else [(n, raw) for n, raw in headers.items() if raw is not None]
                key = own if bad.key is None else bad.key
                partition = (topics.partition_of(key, settings.partitions) + bad.shift) % settings.partitions
                at[f"message {name}"] = (
                    partition, await producer.send(topic, key, bad.value(value), sent, partition=partition)
                )  # fmt: skip

    asyncio.run(send())
    query = "SELECT partition, log_offset, outcome, code, rows, applied, rejected FROM ledger WHERE topic = %s"

    def found() -> dict[str, Line]:
        lines = {(row[0], row[1]): row[2:] for row in shop.pipeline.sql(query, topic)}
        return {name: lines[place] for name, place in at.items() if place in lines}

    with suppress(AssertionError):
        eventually(lambda: len(found()) == len(at))
    shop.accepted |= {f"{name} 0" for name in BAD_ROWS}
    shop.accepted |= {f"{name} {n}" for name, bad in BAD_MESSAGES.items() if bad.code is None for n in range(bad.rows)}
    return found()


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_bad_row_of_a_direct_producer_is_rejected_and_the_good_one_beside_it_applied(
    ledger: dict[str, Line], name: str
) -> None:
    assert ledger[name] == ("applied", None, 2, 1, 1)


@pytest.mark.parametrize("name", BAD_MESSAGES)
def test_a_bad_message_of_a_direct_producer_ends_in_the_ledger(ledger: dict[str, Line], name: str) -> None:
    bad = BAD_MESSAGES[name]
    outcome, code, rows, applied, rejected = ledger[f"message {name}"]
    assert (outcome, code) == ("applied" if bad.code is None else "rejected", bad.code)
    assert (applied, rejected) == ((rows, 0) if bad.code is None else (0, rows))
    assert rows == (bad.rows if bad.code is None else rows)


def test_after_all_that_a_good_order_becomes_a_row(shop: Shop, ledger: dict[str, Line]) -> None:
    good = shop.order()
    shop.takes(good, good)
    query = "SELECT 1 FROM orders" + BY_ID
    eventually(lambda: shop.pipeline.sql(query, shop.tenant, json.loads(good)["external_order_id"]))
