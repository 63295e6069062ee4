"""What no client should send is answered like everything else: with a problem, and never with a 5xx."""

import json
import re
import socket

import pytest
from pipeline import Pipeline
from shop import Shop, problem


def test_405_names_all_methods_of_the_path(pipeline: Pipeline) -> None:
    for path, methods in pipeline.http.get("/api/schema/openapi.json").json()["paths"].items():
        if "/admin/" in path:
            continue  # says nothing to who has no token
        answer = pipeline.http.request("PATCH", path.replace("{n}", "1").replace("{", "").replace("}", ""))
        said = problem(answer, 405, "method_not_allowed")
        assert said["detail"].endswith(f"it takes {answer.headers['allow']}"), said
        allowed = {method.strip().lower() for method in answer.headers["allow"].split(",")}
        # A product's id may hold slashes, so that GET takes what looks like a path of its own below products.
        beyond = {"get", "head"} if path.rpartition("/")[2] in ("price-event", "price-limits") else {"head"}
        assert allowed - beyond == methods.keys() - beyond, path


@pytest.mark.parametrize(
    ("body", "type_", "status", "code", "says"),
    [
        (b'[{"a": 1}, {"b": 2}]', "", 422, "not_an_object", "send one object a line (NDJSON)"),
        (b'[{"a": 1}]', "application/json", 422, "not_an_object", "send one object a line (NDJSON)"),
        (b'[\n  {"a": 1},\n  {"b": 2}\n]', "", 422, "malformed_json", "send one object a line (NDJSON)"),
        (b'{\n  "a": 1\n}', "", 422, "malformed_json", "Content-Type: application/json"),
        (b'{"a": 1}\n{"a": 2}', "application/json", 422, "malformed_json", "application/x-ndjson, one a line"),
        (b"id,total\n1,2", "text/csv; charset=utf-8", 415, "unknown_media_type", "tillstream ingest FILE"),
        (b"--x\r\n", "multipart/form-data; boundary=x", 415, "unknown_media_type", "application/x-ndjson"),
        (b"a=1&b=2", "application/x-www-form-urlencoded", 415, "unknown_media_type", "application/json"),
        (b"PK", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", 415, "unknown_media_type", "CSV"),
    ],
)  # fmt: skip
def test_what_is_not_ndjson_is_told_what_to_send(
    shop: Shop, body: bytes, type_: str, status: int, code: str, says: str
) -> None:
    answer = shop.post(body, **({"Content_Type": type_} if type_ else {}))
    said = answer.json()
    assert (answer.status_code, (said["errors"][0] if status == 422 else said)["code"]) == (status, code), said
    assert says in (said["errors"][0] if status == 422 else said)["detail"]


def test_curls_own_content_type_is_taken(shop: Shop) -> None:
    line = shop.order()
    shop.takes(line, line, Content_Type="application/x-www-form-urlencoded")


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("total_amount", "12,50", "expected an amount such as 12.50, with a point and nothing between the thousands"),
        ("order_date", "31/01/2026", "expected a time with its offset, such as 2026-01-31T12:00:00Z, got '31/01/2026'"),
        ("updated_at", "2026-01-31", "expected a time with its offset"),
    ],
)
def test_what_spreadsheets_write_is_told_what_to_write_instead(shop: Shop, field: str, value: str, says: str) -> None:
    [error] = shop.refuses(shop.order(**{field: value}), 422, "rows_rejected")["errors"]
    assert (error["pointer"], error["code"]) == (f"/{field}", "invalid_value")
    assert says in error["detail"]


@pytest.mark.parametrize(
    "path",
    [
        "/%00", "/%ff%fe", "/%zz", "/%", "/a%00b/", "//", "/healthz//", "/../../etc/passwd", "/api/v1/tenants//uploads",
        "/api/v1/tenants/a%2Fb/orders", "/api/v1/tenants/%00/orders", "/api/v1/tenants/%ff/orders/%ff",
        "/api/v1/admin/tenants/%00/keys/%ff", "TENANT/orders/%zz", "TENANT/orders/%00", "TENANT/orders/%ff",
        "TENANT/uploads/%00", "TENANT/uploads/%ff/errors", "TENANT/uploads/%C3%A9/chunks/1",
        "TENANT/uploads/x/chunks/%00", "TENANT/uploads/x/chunks/" + "9" * 5_000, "TENANT/events/%00",
        "TENANT/events/%ff", "TENANT/products%2Fx", "TENANT/orders%2FA-1", "TENANT/events%2Fx",
        "TENANT/orders?from=0001-01-01T00:00:00%2B23:59", "TENANT/orders?to=9999-12-31T23:59:59-23:59",
        "TENANT/events/" + "x" * 20_000, "TENANT/orders?%00=%ff", "TENANT/orders?sku=%00", "TENANT/orders?cursor=%ff",
        "TENANT/orders?from=%zz", "TENANT/orders?limit=" + "9" * 5_000,
    ],
    ids=lambda path: path[:40],
)  # fmt: skip
def test_a_strange_path_is_answered_with_a_problem(shop: Shop, path: str) -> None:
    path = path.replace("TENANT", f"/api/v1/tenants/{shop.tenant}")
    for method in ("GET", "PUT", "POST", "DELETE"):
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nX-API-Key: {shop.key}\r\n\r\n"
        status, headers, body = raw(shop.pipeline, head.encode())
        assert status in (400, 401, 404, 405), body
        assert b"content-type: application/problem+json" in headers
        assert json.loads(body)["status"] == status


@pytest.mark.parametrize(
    "request_",
    [
        b"GET\r\n\r\n", b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n", b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n", b"GET http:// HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_no_request_is_answered_with_a_problem(pipeline: Pipeline, request_: bytes) -> None:
    status, headers, body = raw(pipeline, request_)
    assert status in (400, 404, 405), (headers, body)
    assert b"content-type: application/problem+json" in headers
    assert json.loads(body)["status"] == status


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "+1", "1_0", "%D9%A1", "0000000010000000000", "9" * 5_000])
def test_a_page_is_never_larger_than_its_limit(pipeline: Pipeline, limit: str) -> None:
    admin = {"Authorization": f"Bearer {pipeline.settings.admin_token}"}
    problem(pipeline.http.get(f"/api/v1/admin/tenants?limit={limit}", headers=admin), 400, "bad_parameter")


@pytest.mark.parametrize("key", ["", '""'])
def test_an_empty_idempotency_key_is_refused_since_it_protects_nothing(shop: Shop, key: str) -> None:
    answer = shop.post(shop.order(), Idempotency_Key=key)
    problem(answer, 400, "bad_idempotency_key")


def test_of_two_idempotency_keys_neither_is_guessed_at(shop: Shop) -> None:
    url = f"/api/v1/tenants/{shop.tenant}/ingest/orders"
    headers = [("X-API-Key", shop.key), ("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    said = problem(shop.pipeline.http.post(url, content=shop.order(), headers=headers), 400, "bad_idempotency_key")
    assert "send one" in said["detail"]


def raw(pipeline: Pipeline, request: bytes) -> tuple[int, bytes, bytes]:
    """Status, headers and body of the answer to bytes."""
    settings = pipeline.settings
    with socket.create_connection((settings.gateway_host, settings.gateway_port), timeout=5) as connection:
        connection.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer and (part := connection.recv(65_536)):
            answer += part
        headers, _, body = answer.partition(b"\r\n\r\n")
        length = int(re.search(rb"content-length: (\d+)", headers)[1])  # type: ignore[index]
        while len(body) < length and (part := connection.recv(65_536)):
            body += part
    return int(headers.split()[1]), headers.lower(), body
