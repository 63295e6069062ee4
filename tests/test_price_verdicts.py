"""The price agent on a real Kafka: each change is judged once, whatever dies, and as the pure functions judge it."""

import random
import uuid
from dataclasses import dataclass, field
from typing import Any

import confluent_kafka
import pytest
from pipeline import Pipeline, eventually
from test_recovery import log_of

from producers.client import config
from schemas import codec, envelope, topics
from schemas.envelope import Position, Request
from schemas.prices import HELD_PRICE_DECISION, PRICE_CHANGES, PRICE_LIMITS, PRICE_POLICY, PRICE_VERDICTS
from streams.price_messages import take
from streams.price_state import amount, cents


@dataclass
class Merchant:
    """A direct producer of one tenant's prices."""

    pipeline: Pipeline
    tenant: str
    sent: int = 0
    kafka: confluent_kafka.Producer = field(init=False)

    def __post_init__(self) -> None:
        self.kafka = confluent_kafka.Producer(config(self.pipeline.settings))

    def send(
        self, type_: str, rows: list[dict[str, Any]], request: Request | None = None, event: str = "", **more: Any
    ) -> None:
        said = {"tenant_id": self.tenant, **({} if type_ == PRICE_POLICY else {"rows": rows}), **more}
        self.publish(type_, codec.encode(type_, said), len(rows), request, event)

    def publish(self, type_: str, value: bytes, rows: int, request: Request | None = None, event: str = "") -> None:
        headers = envelope.headers_of(
            event_id=event or f"{self.tenant}-{self.sent}", type=type_, source="test", accepted_ms=1, rows=rows,
            value=value, traceparent=None, request=request, body_hash="ab" * 32 if request else None,
        )  # fmt: skip
        self.sent += 1
        name = self.pipeline.settings.named(topics.PRICES)
        self.kafka.produce(name, value, topics.partition_key(self.tenant), headers=headers)

    def change(self, prices: dict[str, int], request: Request | None = None, event: str = "") -> None:
        rows = [
            {"line": line, "product_id": product, "new_price": amount(price), "currency": "EUR"}
            for line, (product, price) in enumerate(prices.items(), request.first if request else 1)
        ]
        self.send(PRICE_CHANGES, rows, request, event)

    def verdicts(self) -> list[dict[str, Any]]:
        """The answers to this tenant's messages, in order."""
        self.kafka.flush(10)
        mine = [m for m in log_of(self.pipeline, topics.PRICES_VERDICTS) if m.key() == self.tenant.encode()]
        return [codec.decode(PRICE_VERDICTS, message.value()) for message in mine]

    def answered(self, count: int) -> list[dict[str, Any]]:
        return list(eventually(lambda: len(said := self.verdicts()) >= count and said, within=40))

    def outcomes(self) -> list[tuple[str, str, int]]:
        mine = [m for m in log_of(self.pipeline, topics.OUTCOMES) if m.key() == self.tenant.encode()]
        said = [codec.decode("tillstream.outcome.v1", message.value()) for message in mine]
        return [(str(outcome["kind"]), outcome["code"], outcome["rows"]) for outcome in said]


def statuses(answer: dict[str, Any]) -> list[str]:
    return [row["status"] for row in answer["rows"]]


@pytest.fixture
def merchant(pipeline: Pipeline) -> Merchant:
    return Merchant(pipeline, f"shop-{uuid.uuid4().hex[:8]}")


def test_policies_limits_and_decisions_rule_what_comes_after_them(merchant: Merchant) -> None:
    merchant.change({"P": 1_000, "Q": 2_000})
    merchant.change({"P": 10_000})
    merchant.send(PRICE_POLICY, [], actions=[{"finding": "decimal_shift", "action": "hold"}])
    merchant.send(PRICE_LIMITS, [{"product_id": "Q", "floor": amount(1_900)}])
    merchant.change({"P": 1_010, "Q": 1_899})
    merchant.change({"P": 10_100})
    held = merchant.answered(6)
    assert [statuses(answer) for answer in held] == [
        ["accepted"] * 2, ["anomaly"], [], ["accepted"], ["accepted", "anomaly"], ["held"]
    ]  # fmt: skip
    decision = {"product_id": "P", "held_offset": held[-1]["offset"], "decision": "approve"}
    merchant.send(HELD_PRICE_DECISION, [decision], decided_by="somebody")
    [row] = merchant.answered(7)[-1]["rows"]
    assert (row["status"], cents(row["price_before"]), cents(row["price_after"])) == ("accepted", 1_010, 10_100)
    assert row["version"] == 4


def test_an_event_that_comes_again_is_judged_once(merchant: Merchant) -> None:
    merchant.change({"P": 1_000}, event="one")
    merchant.change({"P": 1_000}, event="one")
    merchant.change({"P": 9_000}, event="one")
    merchant.change({"P": 1_100}, event="two")
    assert [statuses(answer) for answer in merchant.answered(2)] == [["accepted"], ["accepted"]]
    assert merchant.outcomes() == [("duplicate", "duplicate", 1), ("conflict", "conflict", 1)]


def test_a_request_that_is_split_elsewhere_is_judged_line_by_line(merchant: Merchant) -> None:
    request_id = uuid.uuid4()
    merchant.change({"a": 1_000, "b": 1_000}, Request(request_id, 1, 2, 3), event="x")
    merchant.change({"a": 1_000, "b": 1_000, "c": 1_000}, Request(request_id, 1, 3, 3), event="y")
    first, second = merchant.answered(2)
    assert ([row["line"] for row in second["rows"]], second["trimmed"], first["trimmed"]) == ([3], 2, 0)
    assert second["request_id"] == str(request_id)


def test_a_policy_that_could_not_be_followed_is_an_outcome(merchant: Merchant) -> None:
    merchant.send(PRICE_POLICY, [], max_decrease_percent=101)
    merchant.change({"P": 1_000})
    merchant.answered(1)
    assert merchant.outcomes() == [("rejected", "invalid_policy", 0)]


def test_bad_messages_are_dead_letters_and_stop_nothing(merchant: Merchant) -> None:
    rows = [{"product_id": "P", "new_price": b"\1"}]
    good = codec.encode(PRICE_CHANGES, {"tenant_id": merchant.tenant, "rows": rows})
    merchant.publish(PRICE_CHANGES, codec.encode(PRICE_CHANGES, {"tenant_id": "other", "rows": rows}), 1)
    merchant.publish(PRICE_CHANGES, good[:-1], 1)
    many = codec.encode(PRICE_CHANGES, {"tenant_id": merchant.tenant, "rows": rows * 1_001})
    merchant.publish(PRICE_CHANGES, many, 1_001)
    merchant.publish("tillstream.orders.v1", good, 1)
    merchant.publish(PRICE_CHANGES, good, 1)
    merchant.answered(1)
    assert [code for _, code, _ in merchant.outcomes()] == [
        "foreign_tenant", "truncated", "too_many_rows", "unknown_type"
    ]  # fmt: skip
    letters = [
        dict(m.headers()) for m in log_of(merchant.pipeline, "dead-letters") if m.key() == merchant.tenant.encode()
    ]
    assert {headers["ts-dlq-step"] for headers in letters} == {b"prices"}


def model(pipeline: Pipeline) -> list[dict[str, Any]]:
    """What the pure functions answer to the log, in the order of each partition."""
    tables: dict[int, tuple[dict[bytes, bytes], dict[bytes, bytes]]] = {}
    answers = []
    for message in log_of(pipeline, topics.PRICES):
        at = Position(message.topic(), message.partition(), message.offset(), message.timestamp()[1])
        read = envelope.read(message.headers(), message.value(), at)
        record = codec.decode(read.type, message.value())
        prices, tallies = tables.setdefault(at.partition, ({}, {}))
        answer = take(prices, tallies, message.key(), read, record)
        answers.append(codec.decode(PRICE_VERDICTS, codec.encode(PRICE_VERDICTS, answer)))
    return answers


def told(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(answers, key=lambda answer: (answer["partition"], answer["offset"]))


def test_workers_that_are_killed_in_a_load_answer_as_the_model_does_and_nothing_twice(own_pipeline: Pipeline) -> None:
    chance = random.Random(3)
    merchants = [Merchant(own_pipeline, f"shop-{n}") for n in range(6)]
    products = [f"P-{n}" for n in range(60)]

    def load(messages: int) -> int:
        for n in range(messages):
            for merchant in merchants:
                factor = chance.choice([1, 1, 1, 0.3, 10])
                some = chance.sample(products, 40)
                merchant.change({p: round(chance.uniform(900, 1_100) * factor) for p in some})
            if n % 20 == 0:
                merchants[n % 6].send(PRICE_POLICY, [], max_increase_percent=chance.randint(5, 50))
        for merchant in merchants:
            merchant.kafka.flush(10)
        return sum(merchant.sent for merchant in merchants)

    def answers() -> list[dict[str, Any]]:
        return [codec.decode(PRICE_VERDICTS, m.value()) for m in log_of(own_pipeline, topics.PRICES_VERDICTS)]

    own_pipeline.start("streams")
    for _ in range(3):
        seen, sent = len(answers()), load(60)
        eventually(lambda seen=seen: len(answers()) > seen)  # type: ignore[misc]
        own_pipeline.kill("streams")
    sent = load(10)
    eventually(lambda: len(answers()) >= sent, within=60)
    assert told(answers()) == told(model(own_pipeline))
    assert own_pipeline.children["streams"].restarts == 3
