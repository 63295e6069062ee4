"""Resumable uploads as a client sees them, through real processes."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from pipeline import Pipeline, eventually

ORDER = {"total_amount": "12.50", "currency": "EUR", "order_status": "paid", "order_date": "2026-01-31T23:59:59Z"}


def orders(first: int, count: int = 3) -> bytes:
    return b"".join(
        json.dumps(ORDER | {"external_order_id": f"A-{n}"}).encode() + b"\n" for n in range(first, first + count)
    )


class Upload:
    """One upload of a fresh tenant."""

    def __init__(self, pipeline: Pipeline, **opening: Any) -> None:
        self.pipeline = pipeline
        self.tenant, self.key = pipeline.tenant()
        opened = self.request("POST", "", json={"entity": "orders"} | opening)
        assert opened.status_code == 201, opened.text
        self.opened = opened.json()
        self.token = opened.json()["token"]

    def request(self, method: str, path: str, key: str = "", **given: Any) -> httpx.Response:
        url = f"/api/v1/tenants/{self.tenant}/uploads{path}"
        headers = {"X-API-Key": key or self.key} | given.pop("headers", {})
        return self.pipeline.http.request(method, url, headers=headers, **given)

    def put(self, number: int, body: bytes, **given: Any) -> httpx.Response:
        return self.request("PUT", f"/{self.token}/chunks/{number}", content=body, **given)

    def complete(self, chunks: int) -> httpx.Response:
        return self.request("POST", f"/{self.token}/complete", json={"chunks": chunks})

    def state(self) -> dict[str, Any]:
        answer = self.request("GET", f"/{self.token}")
        assert answer.status_code == 200, answer.text
        said: dict[str, Any] = answer.json()
        return said

    def errors(self) -> list[dict[str, Any]]:
        answer = self.request("GET", f"/{self.token}/errors")
        assert answer.headers["content-type"].startswith("application/x-ndjson")
        return [json.loads(line) for line in answer.text.splitlines()]


def test_chunks_in_any_order_in_parallel_and_again_are_applied_once(pipeline: Pipeline) -> None:
    upload = Upload(pipeline, name="orders.ndjson")
    assert upload.opened["state"] == "open"
    assert upload.state()["state"] == "open"
    numbers = [5, 1, 4, 2, 3] * 3
    with ThreadPoolExecutor(5) as threads:
        answers = list(threads.map(lambda n: upload.put(n, orders(10 * n)), numbers))
    assert {answer.status_code for answer in answers} == {202}
    assert [answer.json()["accepted"] for answer in answers] == [3] * 15
    assert upload.complete(5).status_code == 202
    state = eventually(lambda: (s := upload.state())["state"] == "completed" and s)
    assert state["chunks"] == {"declared": 5, "applied": 5, "missing": [], "missing_count": 0}
    assert (state["rows"]["applied"], state["rows"]["rejected"], state["name"]) == (15, 0, "orders.ndjson")
    assert pipeline.sql("SELECT count(*) FROM orders WHERE tenant_id = %s", upload.tenant) == [(15,)]
    again = upload.put(3, orders(30))
    assert (again.status_code, again.headers["idempotent-replayed"]) == (202, "true")
    assert upload.request("DELETE", f"/{upload.token}").status_code == 202
    assert upload.state()["state"] == "completed"  # a cancel that came too late
    assert again.json()["event_ids"] == answers[4].json()["event_ids"]
    pipeline.drained()


def test_what_is_missing_is_said_and_can_still_come_after_complete(pipeline: Pipeline) -> None:
    upload = Upload(pipeline)
    for n in (1, 4):
        upload.put(n, orders(n * 10))
    eventually(lambda: upload.state()["chunks"]["applied"] == 2)
    assert upload.state()["chunks"] == {"declared": None, "applied": 2, "missing": [2, 3], "missing_count": 2}
    assert upload.complete(5).json()["state"] == "processing"
    eventually(lambda: upload.state()["chunks"]["missing"] == [2, 3, 5])
    assert upload.state()["state"] == "processing"
    assert isinstance(upload.state()["eta_s"], float)
    for n in (2, 3, 5):
        assert upload.put(n, orders(n * 10)).status_code == 202
    eventually(lambda: upload.state()["state"] == "completed")
    assert upload.complete(5).status_code == 202
    assert upload.complete(6).json()["code"] == "upload_completed"
    refused = upload.put(6, orders(60))
    assert (refused.status_code, refused.json()["code"]) == (409, "chunk_out_of_range")


def test_an_upload_cannot_have_fewer_chunks_than_have_come(pipeline: Pipeline) -> None:
    upload = Upload(pipeline)
    for n in (1, 4):
        upload.put(n, orders(n * 10))
    eventually(lambda: upload.state()["chunks"]["applied"] == 2)
    too_few = upload.complete(3)
    assert (too_few.status_code, too_few.json()["code"]) == (409, "too_few_chunks")
    assert "chunk 4 has come" in too_few.json()["detail"]
    assert upload.state()["chunks"]["declared"] is None
    assert upload.complete(4).status_code == 202


def test_of_racing_completes_the_first_that_can_be_wins(own_pipeline: Pipeline) -> None:
    own_pipeline.start("gateway")
    upload = Upload(own_pipeline)
    upload.put(2, orders(20))
    for chunks in (1, 2, 3, 2):
        assert upload.complete(chunks).status_code == 202  # nobody knows yet: log order decides
    upload.put(3, orders(30))
    upload.put(1, orders(10))
    own_pipeline.start("streams", "sinks")
    own_pipeline.drained()
    lines = own_pipeline.sql(
        "SELECT chunk, outcome, code, detail FROM ledger WHERE type LIKE %s ORDER BY log_offset", "%completed%"
    )
    assert lines[0] == (1, "rejected", "too_few_chunks", "completed with 1 chunks of its upload")
    assert [line[:2] for line in lines[1:]] == [(2, "applied"), (3, "conflict"), (2, "duplicate")]
    state = upload.state()
    assert (state["state"], state["chunks"]["declared"]) == ("partially_completed", 2)
    assert (state["rows"]["applied"], state["rows"]["rejected"]) == (6, 3)


def test_bad_rows_are_listed_with_line_reason_and_row(pipeline: Pipeline) -> None:
    upload = Upload(pipeline)
    no_sum = {"items": [{"product_id": "P", "quantity": 2, "unit_price": "5.00"}], "external_order_id": "A-99"}
    first = upload.put(1, orders(0) + b'{"external_order_id": 7, "gift": true}\n\n' + b"nonsense \xff\n")
    assert (first.status_code, first.json()["accepted"], first.json()["rejected"]) == (202, 3, 2)
    all_bad = upload.put(2, b"[]\n")
    assert (all_bad.status_code, all_bad.json()["accepted"], all_bad.json()["rejected"]) == (202, 0, 1)
    upload.put(3, json.dumps(ORDER | no_sum).encode())
    upload.complete(3)
    state = eventually(lambda: (s := upload.state())["state"] == "partially_completed" and s)
    assert (state["rows"]["applied"], state["rows"]["rejected"]) == (3, 4)
    errors = upload.errors()
    assert [(e["chunk"], e["line"], e["code"]) for e in errors] == [
        (1, 4, "wrong_type"), (1, 6, "invalid_utf8"), (2, 1, "not_an_object"), (3, 1, "total_mismatch")
    ]  # fmt: skip
    assert json.loads(errors[0]["row"]) == {"external_order_id": 7, "gift": True}
    assert {e["pointer"] for e in errors[0]["errors"]} >= {"/external_order_id", "/total_amount", "/currency"}
    assert json.loads(errors[3]["row"])["items"] == no_sum["items"]
    assert errors[3]["detail"] == "the items add up to 10.00, total_amount is 12.50"
    # A chunk that was refused whole is still the same chunk.
    pipeline.drained()
    assert upload.put(2, b"[]\n").headers["idempotent-replayed"] == "true"


def test_a_chunk_never_changes(pipeline: Pipeline) -> None:
    upload = Upload(pipeline)
    upload.put(1, orders(0))
    eventually(lambda: upload.state()["chunks"]["applied"] == 1)
    other = upload.put(1, orders(1))
    assert (other.status_code, other.json()["code"], other.json()["retriable"]) == (409, "chunk_conflict", False)


def test_a_racing_chunk_with_other_content_is_a_conflict(own_pipeline: Pipeline) -> None:
    own_pipeline.start("gateway")
    upload = Upload(own_pipeline)
    for body in (orders(0), orders(0, 5)):
        assert upload.put(1, body).status_code == 202
    own_pipeline.start("streams", "sinks")
    own_pipeline.drained()
    upload.complete(1)
    state = eventually(lambda: (s := upload.state())["state"] == "partially_completed" and s)
    assert (state["rows"]["applied"], state["rows"]["conflict"]) == (3, 5)


def test_after_a_cancel_no_chunk_counts_and_what_was_applied_stays(own_pipeline: Pipeline) -> None:
    own_pipeline.start("gateway")
    upload = Upload(own_pipeline)
    upload.put(1, orders(0))
    assert upload.request("DELETE", f"/{upload.token}").json()["state"] == "cancelled"
    assert upload.put(2, orders(10)).status_code == 202  # nobody knows yet: log order decides
    assert upload.put(1, orders(0)).status_code == 202
    own_pipeline.start("streams", "sinks")
    own_pipeline.drained()
    lines = own_pipeline.sql(
        "SELECT chunk, outcome, code, rows FROM ledger WHERE tenant_id = %s AND chunk > 0 ORDER BY log_offset",
        upload.tenant,
    )
    assert lines == [(1, "applied", None, 3), (2, "rejected", "upload_cancelled", 3), (1, "duplicate", "duplicate", 3)]
    assert upload.state()["state"] == "cancelled"
    assert upload.put(3, orders(20)).json()["code"] == "upload_cancelled"
    assert upload.complete(1).json()["code"] == "upload_cancelled"


def test_an_upload_expires(pipeline: Pipeline) -> None:
    upload = Upload(pipeline, expires_in_s=1)
    time.sleep(1.1)
    late = upload.put(1, orders(0))
    assert (late.status_code, late.json()["code"]) == (410, "upload_expired")
    assert upload.state()["state"] == "expired"


@pytest.mark.parametrize(("given", "state"), [({"expires_in_s": 1}, "expired"), ({}, "cancelled")])
def test_an_opening_that_comes_again_says_what_became_of_the_upload(
    pipeline: Pipeline, given: dict[str, Any], state: str
) -> None:
    upload = Upload(pipeline)
    document, key = {"entity": "orders"} | given, {"Idempotency-Key": "u-3"}
    first = upload.request("POST", "", json=document, headers=key).json()
    assert first["state"] == "open"
    if state == "cancelled":
        upload.request("DELETE", f"/{first['token']}")
    else:
        time.sleep(1.1)
    pipeline.drained()
    again = upload.request("POST", "", json=document, headers=key)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json() == first | {"state": state}


def test_uploads_are_listed_the_newest_first_page_by_page(pipeline: Pipeline) -> None:
    upload = Upload(pipeline, name="first")
    for name in ("second", "third"):
        assert upload.request("POST", "", json={"entity": "orders", "name": name}).status_code == 201
    pages = eventually(lambda: (all_ := upload.request("GET", "?limit=3").json())["next_before"] is None
                       and len(all_["data"]) == 3 and all_)  # fmt: skip
    assert [one["name"] for one in pages["data"]] == ["third", "second", "first"]
    assert pages["data"][2]["token"] == upload.token
    page = upload.request("GET", "?limit=2").json()
    rest = upload.request("GET", f"?limit=2&before={page['next_before']}").json()
    assert [one["name"] for one in page["data"] + rest["data"]] == ["third", "second", "first"]
    for wrong in ("limit=0", "limit=x", "before=x", "befor=1"):
        assert upload.request("GET", f"?{wrong}").json()["code"] == "bad_parameter"


def test_opening_under_a_key_opens_one_upload(pipeline: Pipeline) -> None:
    upload = Upload(pipeline)

    def opened(entity: str) -> httpx.Response:
        return upload.request("POST", "", json={"entity": entity}, headers={"Idempotency-Key": "u-1"})

    first = opened("products")
    pipeline.drained()
    again = opened("products")
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json() == first.json()
    assert (opened("orders").status_code, opened("orders").json()["code"]) == (422, "idempotency_key_reused")


def test_another_opening_under_a_key_in_flight_opens_nothing(own_pipeline: Pipeline) -> None:
    own_pipeline.start("gateway")
    upload, key = Upload(own_pipeline), {"Idempotency-Key": "u-2"}
    first, other = (
        upload.request("POST", "", json={"entity": entity}, headers=key).json() for entity in ("orders", "products")
    )
    assert first["upload_id"] != other["upload_id"]
    for token, body in ((first["token"], orders(0)), (other["token"], b'{"product_id":"P","name":"x","price":1}')):
        assert upload.request("PUT", f"/{token}/chunks/1", content=body).status_code == 202
    own_pipeline.start("streams", "sinks")
    own_pipeline.drained()
    lines = own_pipeline.sql("SELECT outcome, code, rows FROM ledger WHERE chunk = 1 ORDER BY log_offset")
    assert lines == [("applied", None, 3), ("rejected", "upload_not_opened", 1)]
    assert own_pipeline.sql("SELECT count(*) FROM products") == [(0,)]


def test_a_token_is_good_for_its_tenant_only_and_not_to_be_made_up(pipeline: Pipeline) -> None:
    upload, other = Upload(pipeline), Upload(pipeline)
    for token in (upload.token, upload.token[:-2] + "AA", "nonsense", upload.token + "=", "%00"):
        for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/errors"), ("PUT", "/chunks/1")):
            answer = other.request(method, f"/{token}{path}", content=orders(0) if method == "PUT" else None)
            assert (answer.status_code, answer.json()["code"]) == (404, "unknown_upload"), (token, path)
    assert upload.request("GET", f"/{upload.token}", key=other.key).status_code == 403


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{",
        b"[]",
        b'{"entity": "shoes"}',
        b'{"entity": "orders", "chunks": 0}',
        b'{"entity": "orders", "x": 1}',
        b'{"entity": "orders", "name": "a\\u0000b"}',
    ],
)
def test_a_bad_opening_is_told_why(pipeline: Pipeline, document: bytes) -> None:
    answer = Upload(pipeline).request("POST", "", content=document)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_document")


def test_chunk_numbers_begin_at_one(pipeline: Pipeline) -> None:
    upload = Upload(pipeline)
    assert upload.put(0, orders(0)).json()["code"] == "bad_chunk_number"
    assert upload.put(10**9, orders(0)).json()["code"] == "bad_chunk_number"
    assert upload.request("PUT", f"/{upload.token}/chunks/01", content=orders(0)).json()["code"] == "bad_chunk_number"
    assert upload.request("PUT", f"/{upload.token}/chunks/x", content=b"").status_code == 404
    assert upload.put(1, b"\n\n").json()["code"] == "empty_body"
