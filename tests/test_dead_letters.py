"""What was set aside, as a table: whole messages with whose they are, and rows out of good messages, each once."""

import secrets
from collections.abc import Iterator
from typing import Any

import confluent_kafka
import psycopg
import pytest
from pipeline import Pipeline, eventually

from deploy import credentials
from producers.client import config
from schemas import codec, envelope, topics

ORDERS = "tillstream.orders.v1"
ROW: dict[str, Any] = dict.fromkeys(("customer_id", "customer_name", "customer_email", "raw_payload", "updated_at")) | {
    "line": 1, "total_amount": b"\x04\xe2", "currency": "EUR", "order_status": "paid",
    "order_date": 1_769_903_999_000_000, "items": [],
}  # fmt: skip


class Direct:
    """A direct producer without a gateway's manners."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self._named, self._partitions = pipeline.settings.named, pipeline.settings.partitions
        self._kafka = confluent_kafka.Producer(config(pipeline.settings))
        self.tenant = f"shop-{secrets.token_hex(4)}"

    def value(self, *ids: str, tenant: str = "", **change: Any) -> bytes:
        rows = [ROW | {"line": n, "external_order_id": one} | change for n, one in enumerate(ids, 1)]
        return codec.encode(ORDERS, {"tenant_id": tenant or self.tenant, "rows": rows})

    def send(
        self, value: bytes | None, topic: str = topics.INGESTION, type_: str = ORDERS, shift: int = 0, **headers: bytes
    ) -> str:
        """Send and return the event id."""
        event_id = secrets.token_hex(8)
        key = topics.partition_key(self.tenant)
        made = dict(
            envelope.headers_of(event_id=event_id, type=type_, source="direct", accepted_ms=1_769_903_999_000, rows=1,
                                value=value or b"", traceparent=None)
        )  # fmt: skip
        partition = (topics.partition_of(key, self._partitions) + shift) % self._partitions
        sent = list({**made, **headers}.items())
        self._kafka.produce(self._named(topic), value, key, partition, headers=sent)
        assert self._kafka.flush(20) == 0
        return event_id

    def letter(self, event_id: str) -> dict[str, Any]:
        """The line of `quarantine`, once it is there."""
        query = "SELECT to_jsonb(quarantine) FROM quarantine WHERE event_id = %s"
        [(found,)] = eventually(lambda: self.pipeline.sql(query, event_id), within=60)
        assert isinstance(found, dict)
        return found


@pytest.fixture
def direct(pipeline: Pipeline) -> Direct:
    return Direct(pipeline)


@pytest.fixture
def reader(pipeline: Pipeline) -> Iterator[psycopg.Connection]:
    with psycopg.connect(credentials.reader_url(pipeline.settings.database_url, "reads-only")) as connection:
        yield connection


def seen_by(reader: psycopg.Connection, tenant: str) -> set[str]:
    with reader.transaction():
        reader.execute("SELECT set_config('app.tenant_id', %s, true)", [tenant])
        return {row[0] for row in reader.execute("SELECT event_id FROM quarantine").fetchall()}


def test_a_message_is_kept_with_why_and_where_it_lay(direct: Direct) -> None:
    value = direct.value("A-1")
    event_id = direct.send(value, shift=1)
    letter = direct.letter(event_id)
    assert (letter["kind"], letter["step"], letter["reason"]) == ("message", "dedup", "wrong_partition")
    assert (letter["tenant_id"], letter["claimed"], letter["type"]) == (direct.tenant, direct.tenant, ORDERS)
    assert letter["topic"] == direct.pipeline.settings.named("ingestion")
    assert (letter["payload"], letter["payload_bytes"]) == ("\\x" + value.hex(), len(value))
    assert letter["headers"]["ce_id"] == event_id
    assert not [name for name in letter["headers"] if name.startswith("ts-dlq")]
    at = (letter["topic"], letter["partition"], letter["log_offset"])
    where = "topic = %s AND partition = %s AND log_offset = %s"
    assert direct.pipeline.sql(f"SELECT outcome, code FROM ledger WHERE {where}", *at) == [
        ("rejected", "wrong_partition")
    ]


def test_what_a_sink_cannot_read_lies_where_its_source_message_did(direct: Direct) -> None:
    event_id = direct.send(direct.value("A-1")[:-3])
    letter = direct.letter(event_id)
    assert (letter["step"], letter["reason"]) == ("sink", "truncated")
    assert letter["topic"] == direct.pipeline.settings.named("ingestion")


def test_a_tenant_sees_its_own_and_nobody_sees_what_is_nobodys(direct: Direct, reader: psycopg.Connection) -> None:
    other = Direct(direct.pipeline)
    own = direct.send(direct.value("A-1"), shift=1)
    foreign = direct.send(direct.value("A-1", tenant=other.tenant))
    cut = direct.send(direct.value("A-1")[:-3])
    row = direct.send(direct.value("A-2", order_status="nonsense"))
    assert [direct.letter(one)["tenant_id"] for one in (own, foreign, cut, row)] == [
        direct.tenant, None, None, direct.tenant,
    ]  # fmt: skip
    assert seen_by(reader, direct.tenant) == {own, row}
    assert seen_by(reader, other.tenant) == set()
    assert seen_by(reader, "") == set()
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        reader.execute("SELECT FROM redrives")


def test_a_letter_that_comes_twice_is_kept_once_and_a_forged_one_stops_nothing(direct: Direct) -> None:
    at = f"{direct.pipeline.settings.named('ingestion')}/0/{10**9}/0".encode()
    forged = [b"", b"x/y", b"t/99999999999/1/1", b"a\x00b/1/1/1", b"t/1/1/" + b"9" * 30]
    for header in (at, at, *forged):
        direct.send(None, topics.DEAD_LETTERS, **{"ts-dlq-src": header, "ts-dlq-reason": b"\xff\x00" * 9_000})
    query = "SELECT count(*), max(length(reason)) FROM dead_letters WHERE claimed = %s"
    assert eventually(
        lambda: (found := direct.pipeline.sql(query, direct.tenant)) == [(1 + len(forged), 10_000)] and found
    )
    assert direct.letter(direct.send(direct.value("A-1"), shift=1))
    assert direct.pipeline.children["sinks"].restarts == 0


def test_rows_are_there_beside_the_good_ones_of_their_message(direct: Direct) -> None:
    rows = [ROW | {"line": n, "external_order_id": f"A-{n}"} for n in range(1, 6)]
    rows[2] |= {"order_status": "nonsense"}
    event_id = direct.send(codec.encode(ORDERS, {"tenant_id": direct.tenant, "rows": rows}))
    letter = direct.letter(event_id)
    assert (letter["kind"], letter["row_index"], letter["line"], letter["natural_id"]) == ("row", 2, 3, "A-3")
    assert (letter["reason"], letter["tenant_id"]) == ("invalid_value", direct.tenant)
    assert '"order_status":"nonsense"' in letter["row"]
    assert direct.pipeline.sql("SELECT count(*) FROM orders WHERE tenant_id = %s", direct.tenant) == [(4,)]
