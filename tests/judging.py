"""What streams make of prices, by their own pure functions, written to the topic that sinks read."""

import time
import uuid
from collections import defaultdict
from typing import Any

import confluent_kafka
from pipeline import Pipeline

from producers.client import config
from schemas import codec, envelope, topics
from schemas.prices import PRICE_CHANGES, PRICE_POLICY, PRICE_VERDICTS
from streams import dedup
from streams.price_messages import take
from streams.price_state import amount


def change(price: int, product: str = "P", **more: Any) -> codec.Record:
    """A change as its Avro record; prices are cents."""
    return {"line": 1, "product_id": product, "new_price": amount(price), "currency": "EUR", **more}


class Judging:
    """Takes messages of `prices` and leaves verdicts behind, in a Kafka transaction each, as streams do."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._settings = settings = pipeline.settings
        self._source = confluent_kafka.Producer(config(settings))
        self._producer = confluent_kafka.Producer(config(settings) | {"transactional.id": f"judge-{uuid.uuid4()}"})
        self._producer.init_transactions(30)
        self._tables: dict[str, dict[bytes, bytes]] = defaultdict(dict)

    def take(
        self,
        tenant: str,
        rows: list[codec.Record],
        type_: str = PRICE_CHANGES,
        *,
        known: dedup.Lines | None = None,
        request: envelope.Request | None = None,
        **more: Any,
    ) -> codec.Record:
        """Publish a message, judge it, and return what was said; the lines in `known` had come before."""
        said = {"tenant_id": tenant, **({} if type_ == PRICE_POLICY else {"rows": rows}), **more}
        value = codec.encode(type_, said)
        read = self._append(tenant, type_, value, len(rows), request)
        record = codec.decode(type_, value)
        trimmed = dedup.trim(record, "rows", known or [])
        table = self._tables[tenant]
        answer = take(table, {}, tenant.encode(), read, record) | {"trimmed": trimmed}
        verdicts = codec.encode(PRICE_VERDICTS, answer)
        self._producer.begin_transaction()
        headers = _headers(PRICE_VERDICTS, verdicts, len(answer["rows"]), read.event_id)
        name = self._settings.named(topics.PRICES_VERDICTS)
        self._producer.produce(name, verdicts, tenant.encode(), read.src.partition, headers=headers)
        self._producer.commit_transaction(30)
        return codec.decode(PRICE_VERDICTS, verdicts)

    def _append(
        self, tenant: str, type_: str, value: bytes, rows: int, request: envelope.Request | None
    ) -> envelope.Envelope:
        found: list[envelope.Position] = []

        def delivered(error: Any, message: confluent_kafka.Message) -> None:
            assert error is None
            at = (message.topic(), message.partition(), message.offset(), message.timestamp()[1])
            found.append(envelope.Position(*at))

        headers = _headers(type_, value, rows, None, request)
        self._source.produce(
            self._settings.named(topics.PRICES), value, topics.partition_key(tenant), headers=headers,
            on_delivery=delivered,
        )  # fmt: skip
        self._source.flush(30)
        return envelope.read(headers, value, found[0])


def _headers(
    type_: str, value: bytes, rows: int, subject: str | None, request: envelope.Request | None = None
) -> envelope.Headers:
    return envelope.headers_of(
        event_id=str(uuid.uuid4()), type=type_, source="tests", accepted_ms=time.time_ns() // 1_000_000, rows=rows,
        value=value, traceparent=None, subject=subject, request=request, body_hash="ab" * 32 if request else None,
    )  # fmt: skip
