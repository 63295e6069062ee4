"""Bad input gets a clear error and loses nothing: what was good beside it becomes a row, and everything goes on."""

import gzip
import json
import socket
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from functools import partial
from typing import Any

import psutil
import pytest
import zstandard
from pipeline import eventually
from shop import BY_ID, ORDER, ZSTD, Shop, problem

from producers import tenants

# Bodies


def test_a_line_of_50_mb_is_refused_whether_its_length_is_declared_or_not(shop: Shop) -> None:
    line = shop.order(gift="x" * 50_000_000)
    shop.refuses(line, 413, "body_too_large")
    shop.refuses((line[at : at + 1_000_000] for at in range(0, len(line), 1_000_000)), 413, "body_too_large")


def test_a_line_over_its_limit_is_refused_alone(shop: Shop) -> None:
    good = shop.order(), shop.order()
    [error] = shop.takes(good[0] + shop.order(gift="x" * 500_000) + good[1], *good)["errors"]
    assert (error["line"], error["code"]) == (2, "line_too_long")


@pytest.mark.parametrize("body", [b"", b"\n\r\n \t\n", b"\xef\xbb\xbf", gzip.compress(b"", mtime=0)], ids=repr)
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
    "query",
    ["?on_error=maybe", "?on_error=", "?validate_only=perhaps", "?on_error=skip&on_error=x", "?validateonly=true"],
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
    ("total_amount", '"sNaN"', "invalid_value"),
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
    ("items", '[{"product_id": "P", "quantity": 1, "unit_price": "sNaN"}]', "invalid_value"),
    ("customer_name", r'"a\u0000b"', "nul_character"),
    ("gift", r'{"a": ["\u0000"]}', "nul_character"),
    (r"gi\u0000ft", "1", "nul_character"),
    ("gift", r'"\ud800"', "lone_surrogate"),
    ("gift", "[" * 100_000, "malformed_json"),
]


@pytest.mark.parametrize(("field", "value", "code"), BAD, ids=[f"{name}={value[:24]}" for name, value, _ in BAD])
def test_a_bad_row_is_refused_alone(shop: Shop, field: str, value: str, code: str) -> None:
    good = shop.order()
    taken = shop.takes(shop.raw(**{field: value}) + good, good)
    assert taken["rejected"] == 1
    [error] = taken["errors"]
    assert (error["line"], error["code"]) == (1, code), error
    assert error["pointer"].startswith(f"/{field}") or code in ("malformed_json", "lone_surrogate")


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
        "items": '[{"product_id": "P", "quantity": 1, "unit_price": 100}]',
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


def test_headers_without_end_are_cut_off(shop: Shop) -> None:
    url = shop.pipeline.http.base_url
    with socket.create_connection((url.host, url.port or 80), timeout=10) as raw:
        raw.sendall(b"POST / HTTP/1.1\r\nhost: x\r\nx-endless: ")
        with suppress(OSError):
            for _ in range(200):
                raw.sendall(b"a" * 100_000)
        with suppress(ConnectionResetError):
            assert raw.recv(100).startswith(b"HTTP/1.1 431") or raw.recv(1) == b""
    assert psutil.Process(shop.pipeline.children["gateway"].pid).memory_info().rss < 250e6
    shop.takes(line := shop.order(), line)
