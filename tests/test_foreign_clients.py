"""Messages that others' programs make, right and wrong: rows, or a dead letter with its reason, and no stall."""

import json
import secrets
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import avro.schema
import confluent_kafka
import foreign
import pytest
from foreign import MURMUR2, Send
from pipeline import Pipeline, eventually

from schemas import codec, topics

ORDERS, CUSTOMERS = "tillstream.orders.v1", "tillstream.customers.v1"
SCHEMA = foreign.schema(ORDERS)
CRC32: dict[str, str] = {}


def order(order_id: str) -> dict[str, Any]:
    absent = dict.fromkeys(("customer_id", "customer_name", "customer_email", "raw_payload", "updated_at"))
    return absent | {
        "line": 1, "external_order_id": order_id, "total_amount": Decimal("12.50"), "currency": "EUR",
        "order_status": "paid", "order_date": datetime(2026, 1, 31, 12, 0, 0, 250_000, UTC),
        "items": [{"product_id": "P", "quantity": 5, "unit_price": Decimal("2.50")}],
    }  # fmt: skip


def another_schema() -> avro.schema.Schema:
    changed = json.loads((foreign.AVRO / "orders.v1" / "001.avsc").read_text())
    changed["fields"].append({"name": "channel", "type": "string", "default": "web"})
    return avro.schema.parse(json.dumps(changed))


class Sender:
    """A tenant that produces by a program of others; its messages are known by their ids."""

    def __init__(self, pipeline: Pipeline, send: Send) -> None:
        self.pipeline, self._send = pipeline, send
        self.tenant = foreign.misplaced_tenant(pipeline)

    def batch(self, **fields: Any) -> dict[str, Any]:
        return {"tenant_id": self.tenant, "rows": [order(f"A-{secrets.token_hex(4)}") | fields]}

    def send(self, value: bytes, headers: dict[str, str] | None = None, settings: dict[str, str] = MURMUR2) -> str:
        """Send one message of orders under an id of its own, or with only the headers given; return the id."""
        event_id = secrets.token_hex(8)
        said = {"ce_type": ORDERS, "ce_id": event_id} if headers is None else headers
        named = self.pipeline.settings.named(topics.INGESTION)
        self._send(self.pipeline.settings.kafka_bootstrap_servers, named, self.tenant, value, said, settings)
        return event_id

    def outcome(self, event_id: str) -> tuple[str, str | None]:
        query = "SELECT outcome, code FROM ledger WHERE tenant_id = %s AND event_id = %s"
        [line] = eventually(lambda: self.pipeline.sql(query, self.tenant, event_id))
        return line[0], line[1]

    def goes_on(self) -> None:
        """A right message after all that becomes rows, and no process had to restart."""
        assert self.outcome(self.send(foreign.single_object(SCHEMA, self.batch()))) == ("applied", None)
        assert [child.restarts for child in self.pipeline.children.values()] == [0] * len(self.pipeline.children)


@pytest.fixture(
    params=[
        foreign.librdkafka,
        pytest.param(
            foreign.kcat, marks=pytest.mark.skipif(not shutil.which("kcat"), reason="kcat is not installed (apt)")
        ),
    ],
    ids=["librdkafka", "kcat"],
)
def sender(request: pytest.FixtureRequest, pipeline: Pipeline) -> Iterator[Sender]:
    sender = Sender(pipeline, request.param)
    yield sender
    sender.goes_on()


def test_what_apaches_avro_package_encodes_becomes_rows(sender: Sender) -> None:
    batch = sender.batch(raw_payload='{"channel": "web"}')
    assert sender.outcome(sender.send(foreign.single_object(SCHEMA, batch))) == ("applied", None)
    query = (
        "SELECT total_amount, order_date, raw_payload, product_id, quantity, unit_price"
        " FROM orders JOIN order_items USING (tenant_id, external_order_id) WHERE tenant_id = %s"
    )
    moment = datetime(2026, 1, 31, 12, 0, 0, 250_000, UTC)
    assert sender.pipeline.sql(query, sender.tenant) == [
        (Decimal("12.50"), moment, {"channel": "web"}, "P", 5, Decimal("2.50"))
    ]


def test_librdkafkas_default_hash_is_told_apart(sender: Sender) -> None:
    event_id = sender.send(foreign.single_object(SCHEMA, sender.batch()), settings=CRC32)
    assert sender.outcome(event_id) == ("rejected", "wrong_partition")


def test_a_tenant_inside_that_is_not_the_keys(sender: Sender) -> None:
    event_id = sender.send(foreign.single_object(SCHEMA, sender.batch() | {"tenant_id": "somebody-else"}))
    assert sender.outcome(event_id) == ("rejected", "foreign_tenant")


def test_a_schema_that_is_not_ours(sender: Sender) -> None:
    changed = another_schema()
    event_id = sender.send(foreign.single_object(changed, sender.batch() | {"channel": "web"}))
    assert sender.outcome(event_id) == ("rejected", "unknown_schema")


@pytest.mark.parametrize("kept", [1, 9, 10, 40, -1])
def test_a_value_cut_short(sender: Sender, kept: int) -> None:
    event_id = sender.send(foreign.single_object(SCHEMA, sender.batch())[:kept])
    assert sender.outcome(event_id) == ("rejected", "bad_framing" if 0 < kept < 10 else "truncated")


def test_a_message_without_headers(sender: Sender) -> None:
    sender.send(foreign.single_object(SCHEMA, sender.batch()), headers={})
    query = "SELECT outcome, code FROM ledger WHERE tenant_id = %s"
    assert eventually(lambda: sender.pipeline.sql(query, sender.tenant)) == [("rejected", "no_ce_type")]


def test_a_message_over_1_mb_is_refused_by_the_broker(sender: Sender) -> None:
    value = foreign.single_object(SCHEMA, sender.batch(raw_payload=json.dumps({"x": secrets.token_hex(600_000)})))
    settings = MURMUR2 | {"message.max.bytes": "4000000"}
    with pytest.raises(Exception, match="MSG_SIZE_TOO_LARGE|non-zero exit status"):
        sender.send(value, settings=settings)


def test_one_that_is_far_over_it_when_decompressed_is_a_dead_letter(sender: Sender) -> None:
    value = foreign.single_object(SCHEMA, sender.batch(raw_payload=json.dumps({"x": "x" * 5_000_000})))
    settings = MURMUR2 | {"message.max.bytes": "9000000", "compression.codec": "gzip"}
    assert sender.outcome(sender.send(value, settings=settings)) == ("rejected", "message_too_large")


def test_the_dead_letter_is_the_message_and_why(sender: Sender) -> None:
    value = foreign.single_object(SCHEMA, sender.batch())[:-1]
    event_id = sender.send(value)
    assert sender.outcome(event_id) == ("rejected", "truncated")
    settings = sender.pipeline.settings
    consumer = confluent_kafka.Consumer({**settings.kafka, "group.id": secrets.token_hex(8)})
    topic = settings.named(topics.DEAD_LETTERS)
    consumer.assign([confluent_kafka.TopicPartition(topic, n, 0) for n in range(settings.partitions)])

    def found() -> confluent_kafka.Message | None:
        message = consumer.poll(1)
        mine = message is not None and ("ce_id", event_id.encode()) in (message.headers() or ())
        return message if mine else None

    message = eventually(found)
    consumer.close()
    headers = dict(message.headers())
    assert (message.key(), message.value()) == (sender.tenant.encode(), value)
    assert headers["ts-dlq-reason"] == b"truncated"
    assert b"the value at byte" in headers["ts-dlq-detail"] or b"not a tillstream.orders.v1" in headers["ts-dlq-detail"]


def test_kafkas_console_producer_lands_where_it_should_and_text_is_no_avro(pipeline: Pipeline) -> None:
    sender = Sender(pipeline, foreign.librdkafka)
    settings = pipeline.settings
    lines = [("ce_type:" + ORDERS + ",ce_id:c-1", '{"external_order_id": "A-1"}'), ("NONE", "hello")]
    text = "".join(f"{headers}\t{sender.tenant}\t{value}\n" for headers, value in lines)
    foreign.console_producer(settings.kafka_bootstrap_servers, settings.named(topics.INGESTION), text)
    query = "SELECT outcome, code FROM ledger WHERE tenant_id = %s ORDER BY code"
    # None of them is wrong_partition: Java hashes with murmur2, whatever else is wrong.
    assert eventually(lambda: len(found := pipeline.sql(query, sender.tenant)) == 2 and found) == [
        ("rejected", "bad_framing"), ("rejected", "no_ce_type"),
    ]  # fmt: skip
    sender.goes_on()


def test_every_fingerprint_of_apaches_package_is_known() -> None:
    for folder in foreign.AVRO.iterdir():
        type_ = f"tillstream.{folder.name}"
        for file in folder.iterdir():
            fingerprint = foreign.schema(type_, file.stem).fingerprint()
            codec.check_framing(type_, b"\xc3\x01" + fingerprint)
