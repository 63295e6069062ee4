"""Messages of topic `prices` over plain dictionaries: policies and decisions in log order, requests in parts."""

import uuid
from dataclasses import dataclass, field
from typing import Any

import pytest

from schemas import codec
from schemas.envelope import Envelope, Position, Request
from schemas.errors import Rejected
from schemas.prices import HELD_PRICE_DECISION, PRICE_CHANGES, PRICE_LIMITS, PRICE_POLICY, PRICE_VERDICTS
from streams import dedup
from streams.price_messages import take
from streams.price_state import amount, cents


@dataclass
class Log:
    """One partition's tables, fed message by message; answers are what another process would read."""

    prices: dict[bytes, bytes] = field(default_factory=dict)
    tallies: dict[bytes, bytes] = field(default_factory=dict)
    offset: int = 0

    def take(self, type_: str, rows: list[dict[str, Any]], request: Request | None = None, **more: Any) -> Any:
        self.offset += 1
        said = {"tenant_id": "acme", "rows": rows, **more} if type_ != PRICE_POLICY else {"tenant_id": "acme", **more}
        record = codec.decode(type_, codec.encode(type_, said))
        at = Position("prices", 3, self.offset, self.offset * 60_000)
        envelope = Envelope("e", type_, "test", at.time_ms, len(rows), b"", at, request=request)
        answer = take(self.prices, self.tallies, b"acme", envelope, record)
        return codec.decode(PRICE_VERDICTS, codec.encode(PRICE_VERDICTS, answer))

    def change(self, prices: dict[str, int], request: Request | None = None) -> list[str]:
        rows = [{"product_id": product, "new_price": amount(price)} for product, price in prices.items()]
        return [row["status"] for row in self.take(PRICE_CHANGES, rows, request)["rows"]]


def test_a_policy_rules_what_comes_after_it_in_the_log() -> None:
    log = Log()
    log.change({"P": 1_000})
    assert log.change({"P": 1_200}) == ["accepted"]
    answer = log.take(PRICE_POLICY, [], max_increase_percent=10)
    assert (answer["rows"], answer["type"], answer["offset"]) == ([], PRICE_POLICY, 3)
    assert log.change({"P": 1_400}) == ["anomaly"]
    with pytest.raises(Rejected, match="invalid_policy"):
        log.take(PRICE_POLICY, [], max_increase_percent=0)
    assert log.change({"P": 1_410}) == ["anomaly"]


def test_limits_come_before_or_after_the_price() -> None:
    log = Log()
    [row] = log.take(PRICE_LIMITS, [{"product_id": "P", "floor": amount(900)}])["rows"]
    assert (row["status"], cents(row["floor"]), row["ceiling"], row["price_after"]) == ("accepted", 900, None, None)
    assert log.change({"P": 899}) == ["anomaly"]


def test_a_held_price_comes_in_force_by_a_decision_and_the_answer_says_whose() -> None:
    log = Log()
    log.take(PRICE_POLICY, [], actions=[{"finding": "decimal_shift", "action": "hold"}])
    log.change({"P": 1_000})
    assert log.change({"P": 10_000}) == ["held"]
    rows = [{"product_id": "P", "held_offset": 3, "decision": "approve"}] * 2
    answer = log.take(HELD_PRICE_DECISION, rows, decided_by="key_1", reason="a new model")
    assert [row["status"] for row in answer["rows"]] == ["accepted", "superseded"]
    assert (cents(answer["rows"][0]["price_after"]), answer["decided_by"]) == (10_000, "key_1")
    assert answer["decision_reason"] == "a new model"
    assert log.change({"P": 10_100}) == ["accepted"]


def test_the_parts_of_a_request_are_tallied_together_and_forgotten_in_time() -> None:
    log, request_id = Log(), uuid.uuid4()
    products = [f"P-{n}" for n in range(30)]
    log.change(dict.fromkeys(products, 1_000))
    parts = [products[n : n + 10] for n in (0, 10, 20)]
    said = [
        log.change(dict.fromkeys(part, 300), Request(request_id, 10 * n + 1, 10 * n + 10, 30))
        for n, part in enumerate(parts)
    ]
    assert said == [["anomaly"] * 10, ["held"] * 10, ["held"] * 10]
    [tally] = log.tallies.values()
    assert not dedup.expired(b"key", tally, dedup.KEPT_MS)
    assert dedup.expired(b"key", tally, dedup.KEPT_MS + 10**9)


def test_a_request_of_one_message_leaves_no_tally() -> None:
    log = Log()
    log.change({"P": 1_000}, Request(uuid.uuid4(), 1, 1, 1))
    assert log.tallies == {}


def test_a_row_that_is_none_leaves_no_entry() -> None:
    log = Log()
    assert log.change({"": 1_000, "Q": 10**12}) == ["rejected", "rejected"]
    assert log.prices == {}


def test_a_long_log_leaves_as_many_entries_as_products() -> None:
    log = Log()
    for n in range(200):
        log.change({f"P-{m}": 1_000 + n for m in range(5)})
    assert len(log.prices) == 5
    assert max(map(len, log.prices.values())) < 200
