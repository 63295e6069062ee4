"""The same request again: the first answer, never a second row. Through real processes."""

import json
import uuid
from typing import Any

import pytest
from pipeline import Pipeline

ORDER = {"total_amount": "12.50", "currency": "EUR", "order_status": "paid", "order_date": "2026-01-31T23:59:59Z"}
SPLIT = "from schemas import topics; topics.MAX_ROWS = {rows}\n"

CUT = """
from gateway import publishing
async def cut(self, part, take=publishing.Publishing._take):
    if self._last_line:
        raise publishing.unavailable("cut")
    await take(self, part)
publishing.Publishing._take = cut
"""

REFUSALS_LOST = """
from gateway import publishing
def lost(self, *args, send=publishing.Publishing._send_rejected):
    publishing.Publishing._send_rejected = send
    raise publishing.unavailable("cut")
publishing.Publishing._send_rejected = lost
"""


def orders(count: int, **fields: Any) -> bytes:
    rows = [ORDER | {"external_order_id": f"A-{n}"} | fields for n in range(count)]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def applied(pipeline: Pipeline, tenant: str) -> list[tuple[Any, ...]]:
    return pipeline.sql("SELECT sum(applied), sum(duplicate), sum(rows) FROM ledger WHERE tenant_id = %s", tenant)


def test_a_finished_request_gets_its_first_answer_again(pipeline: Pipeline) -> None:
    tenant, key = pipeline.tenant()
    many_wrong = json.dumps({"items": [{"quantity": 0}] * 60}).encode()
    body = orders(1500) + b'{"external_order_id": 7}\nnonsense\n' + many_wrong
    first = pipeline.post(tenant, key, "orders", body, Idempotency_Key="k-1")
    assert (first.status_code, first.json()["accepted"], first.json()["rejected"]) == (202, 1500, 3)
    last = [error for error in first.json()["errors"] if error["line"] == 1503]
    assert (len(last), last[-1]["code"]) == (100, "more_errors")
    assert "idempotent-replayed" not in first.headers
    pipeline.drained()
    again = pipeline.post(tenant, key, "orders", body, Idempotency_Key='"k-1"')
    assert again.headers["idempotent-replayed"] == "true"
    assert (again.status_code, again.json()) == (first.status_code, first.json())
    pipeline.drained()
    assert applied(pipeline, tenant) == [(1500, 0, 1500)]


def test_an_answer_is_not_given_again_without_its_refused_lines(own_pipeline: Pipeline) -> None:
    own_pipeline.start("streams", "sinks")
    own_pipeline.start("gateway", patch=REFUSALS_LOST)
    tenant, key = own_pipeline.tenant()
    body = orders(3) + b'{"external_order_id": 7}\n'
    assert own_pipeline.post(tenant, key, "orders", body, Idempotency_Key="k").status_code == 503
    own_pipeline.drained()  # the good rows are in the ledger, what was refused never left
    again = own_pipeline.post(tenant, key, "orders", body, Idempotency_Key="k")
    assert (again.status_code, again.json()["accepted"], again.json()["rejected"]) == (202, 3, 1)
    assert "idempotent-replayed" not in again.headers
    own_pipeline.drained()
    assert own_pipeline.sql("SELECT line, stage FROM row_errors WHERE tenant_id = %s", tenant) == [(4, "gateway")]
    third = own_pipeline.post(tenant, key, "orders", body, Idempotency_Key="k")
    assert third.headers["idempotent-replayed"] == "true"
    assert third.json() == again.json()
    assert applied(own_pipeline, tenant) == [(3, 3, 6)]


def test_another_body_under_a_used_key_is_refused(pipeline: Pipeline) -> None:
    tenant, key = pipeline.tenant()
    assert pipeline.post(tenant, key, "orders", orders(1), Idempotency_Key="k").status_code == 202
    pipeline.drained()
    other = pipeline.post(tenant, key, "orders", orders(2), Idempotency_Key="k")
    assert (other.status_code, other.json()["code"], other.json()["retriable"]) == (
        422,
        "idempotency_key_reused",
        False,
    )
    assert other.headers["idempotency-key"] == "k"
    assert applied(pipeline, tenant) == [(1, 0, 1)]


def test_a_body_without_a_good_row_is_remembered_too(pipeline: Pipeline) -> None:
    tenant, key = pipeline.tenant()
    body = b'{"external_order_id": "A", "total_amount": -1, "currency": "eur"}\n'
    first = pipeline.post(tenant, key, "orders", body, Idempotency_Key="k")
    assert first.status_code == 422
    pipeline.drained()
    again = pipeline.post(tenant, key, "orders", body, Idempotency_Key="k")
    assert again.headers["idempotent-replayed"] == "true"
    assert (again.status_code, again.json()) == (422, first.json())
    assert len(first.json()["errors"]) == 4


def test_another_body_before_the_first_is_in_the_ledger_is_a_conflict(own_pipeline: Pipeline) -> None:
    own_pipeline.start("gateway")
    tenant, key = own_pipeline.tenant()
    for body in (orders(3), orders(3), orders(5)):
        answer = own_pipeline.post(tenant, key, "orders", body, Idempotency_Key="k")
        assert answer.status_code == 202
    own_pipeline.start("streams", "sinks")
    own_pipeline.drained()
    outcomes = own_pipeline.sql("SELECT outcome, rows FROM ledger WHERE tenant_id = %s ORDER BY log_offset", tenant)
    assert outcomes == [("applied", 3), ("duplicate", 3), ("conflict", 5)]
    assert own_pipeline.sql("SELECT count(*) FROM orders WHERE tenant_id = %s", tenant) == [(3,)]


@pytest.mark.parametrize(("before", "after"), [(400, 250), (250, 400)])
def test_a_resend_that_is_split_elsewhere_is_applied_once(own_pipeline: Pipeline, before: int, after: int) -> None:
    """A gateway of another version may split a body differently, when only a part of it has landed."""
    own_pipeline.start("gateway", patch=SPLIT.format(rows=before) + CUT, restarted=False)
    tenant, key = own_pipeline.tenant()
    body = orders(1000, order_status="pending") + b"nonsense\n"
    cut = own_pipeline.post(tenant, key, "orders", body, Idempotency_Key="k")
    assert (cut.status_code, cut.json()["retriable"]) == (503, True)
    own_pipeline.stop("gateway")
    own_pipeline.start("streams", "sinks")
    assert own_pipeline.drained().tenants[tenant].accepted == before
    own_pipeline.start("gateway", patch=SPLIT.format(rows=after), restarted=False)
    newer = own_pipeline.post(tenant, key, "orders", orders(before, order_status="paid"))
    assert newer.status_code == 202
    resent = own_pipeline.post(tenant, key, "orders", body, Idempotency_Key="k")
    assert (resent.status_code, resent.json()["accepted"], resent.json()["rejected"]) == (202, 1000, 1)
    own_pipeline.drained()
    # Each row of the first try once; what is resent of it is a duplicate, and does not undo the newer status.
    assert applied(own_pipeline, tenant) == [(1000 + before, before, 1000 + 2 * before)]
    by_status = "SELECT order_status, count(*) FROM orders WHERE tenant_id = %s GROUP BY 1 ORDER BY 1"
    assert own_pipeline.sql(by_status, tenant) == [("paid", before), ("pending", 1000 - before)]
    again = own_pipeline.post(tenant, key, "orders", body, Idempotency_Key="k")
    assert again.headers["idempotent-replayed"] == "true"
    assert (again.json()["accepted"], again.json()["rejected"]) == (1000, 1)


def test_event_ids_are_uuids_and_minted_keys_differ(pipeline: Pipeline) -> None:
    tenant, key = pipeline.tenant()
    one, other = (pipeline.post(tenant, key, "orders", orders(1)) for _ in range(2))
    assert one.headers["idempotency-key"] != other.headers["idempotency-key"]
    assert one.json()["event_ids"] != other.json()["event_ids"]
    assert uuid.UUID(one.json()["event_ids"][0]).version == 5


def test_while_postgresql_is_away_the_streams_still_apply_it_once(own_pipeline: Pipeline) -> None:
    own_pipeline.settings = own_pipeline.settings_with(reader_database_url="postgresql://x:y@127.0.0.1:1/none")
    own_pipeline.start("gateway", "streams", "sinks")
    tenant, key = own_pipeline.tenant()
    for _ in range(2):
        answer = own_pipeline.post(tenant, key, "orders", orders(10), Idempotency_Key="k")
        assert (answer.status_code, answer.json()["accepted"]) == (202, 10)
    own_pipeline.drained()
    assert applied(own_pipeline, tenant) == [(10, 10, 20)]
