"""Bad rows and bad messages of direct producers: rejected in the ledger, and everything goes on."""

import asyncio
import json
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import confluent_kafka
import pytest
from pipeline import eventually
from shop import BY_ID, Shop

from producers.client import Producer, config
from schemas import codec, envelope, topics

ROW: dict[str, Any] = dict.fromkeys(("customer_id", "customer_name", "customer_email", "raw_payload", "updated_at")) | {
    "line": 1, "total_amount": b"\x04\xe2", "currency": "EUR", "order_status": "paid",
    "order_date": 1_769_903_999_000_000, "items": [],
}  # fmt: skip
ITEM = {"product_id": "P", "quantity": 1, "unit_price": b"\x01"}
BAD_ROWS: dict[str, dict[str, Any]] = {
    "status": {"order_status": "nonsense"},
    "customer's id that no index takes": {"customer_id": secrets.token_urlsafe(9_000)},
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
    "price of an item of 10,000 bytes": {"items": [ITEM, ITEM | {"unit_price": b"\x01" * 10_000}]},
    "total of other than its items": {"items": [ITEM]},
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
                value = codec.encode(TYPE, {"tenant_id": shop.tenant, "rows": rows(name, {}, change)})
                sent = [("ce_type", TYPE.encode()), ("ce_id", f"row {name}".encode())]
                at[name] = (topics.partition_of(own, settings.partitions), await producer.send(topic, own, value, sent))
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


def test_a_replay_refuses_the_same_rows_for_the_same_reasons(shop: Shop, ledger: dict[str, Line]) -> None:
    shop.pipeline.drained()
    done = shop.pipeline.cli("replay", "--tenant", shop.tenant)
    assert (done.returncode, "nothing differs" in done.stdout) == (0, True), done.stdout + done.stderr
    reasons = shop.pipeline.sql("SELECT DISTINCT detail FROM row_errors WHERE tenant_id = %s", shop.tenant)
    assert ("longer than can be stored or indexed",) in reasons


def test_a_message_that_is_huge_when_decompressed_is_dead_lettered_and_its_partition_goes_on(shop: Shop) -> None:
    settings = shop.pipeline.settings
    huge = confluent_kafka.Producer(config(settings) | {"compression.type": "zstd", "message.max.bytes": 50_000_000})
    value = codec.encode("tillstream.orders.v1", {"tenant_id": shop.tenant, "rows": []})[:10] + bytes(6_000_000)
    headers = [("ce_type", b"tillstream.orders.v1"), ("ce_id", b"huge")]
    landed: list[Any] = []
    topic, key = settings.named(topics.INGESTION), topics.partition_key(shop.tenant)
    huge.produce(topic, value, key, headers=headers, on_delivery=lambda error, _: landed.append(error))
    assert huge.flush(20) == 0
    assert landed == [None]
    shop.takes(line := shop.order(), line)
    query = "SELECT code FROM ledger WHERE tenant_id = %s AND event_id = 'huge'"
    assert eventually(lambda: shop.pipeline.sql(query, shop.tenant)) == [("message_too_large",)]
    assert shop.pipeline.children["streams"].restarts == 0


REJECTED = {"entity": "orders", "rejected": [{"line": 1, "row": "a\x00", "errors": []}]}
UPLOAD = {"upload_id": "0190c1b2-0000-5000-8000-000000000001", "entity": "orders", "name": None, "chunks": 1}
TIMES = dict.fromkeys(("opened_at", "expires_at", "completed_at", "cancelled_at"), 1_769_903_999_000_000)
BAD_WORDS: list[tuple[str, dict[str, Any]]] = [
    (envelope.ROWS_REJECTED, REJECTED),
    (envelope.UPLOAD_OPENED, UPLOAD | TIMES | {"upload_id": "no uuid"}),
    (envelope.UPLOAD_OPENED, UPLOAD | TIMES | {"entity": "shoes"}),
    (envelope.UPLOAD_OPENED, UPLOAD | TIMES | {"name": "a\x00b"}),
    (envelope.UPLOAD_OPENED, UPLOAD | TIMES | {"expires_at": 2**63 - 1}),
    (envelope.UPLOAD_COMPLETED, UPLOAD | TIMES | {"chunks": -1}),
    (envelope.UPLOAD_CANCELLED, UPLOAD | TIMES | {"cancelled_at": -(2**63)}),
]


@pytest.mark.parametrize(("type_", "record"), BAD_WORDS)
def test_what_only_a_gateway_should_say_may_be_said_by_anybody(shop: Shop, type_: str, record: dict[str, Any]) -> None:
    settings, event_id = shop.pipeline.settings, secrets.token_hex(8)
    value = codec.encode(type_, {"tenant_id": shop.tenant} | record)
    made = envelope.headers_of(
        event_id=event_id, type=type_, source="direct", accepted_ms=0, rows=0, value=value, traceparent=None
    )

    async def send() -> None:
        async with Producer(settings) as producer:
            await producer.send(settings.named(topics.INGESTION), topics.partition_key(shop.tenant), value, made)

    asyncio.run(send())
    query = "SELECT outcome, code, rows FROM ledger WHERE event_id = %s"
    assert eventually(lambda: shop.pipeline.sql(query, event_id)) == [("rejected", "invalid_value", 0)]
