"""From Kafka's records to a batch: what each topic's records are to a sink."""

import logging
from collections.abc import Callable
from typing import Final

import confluent_kafka
from msgspec.structs import replace

from producers.breaker import Breaker
from producers.client import config
from producers.registry import backoff, reading
from schemas import codec, metrics, stock, topics, tracing
from schemas.envelope import Position, dead_letter_headers
from schemas.errors import Rejected, Unavailable, Undecodable
from schemas.prices import PRICE_VERDICTS
from schemas.settings import Settings
from sinks import redrives
from sinks.batch import Batch, Message, prepare
from sinks.dead_letters import letter_of
from sinks.exports.requests import asked_in
from sinks.policies import InForce
from sinks.records import tenant_of, type_of

log = logging.getLogger(__name__)

_OUTCOME: Final = "tillstream.outcome.v1"


class Intake:
    """Reads records, follows the tenants' policies in them, and dead-letters what cannot be read."""

    def __init__(self, settings: Settings, wait: Callable[[float], None], *, again: bool = False) -> None:
        """`wait` lets seconds pass while the schema registry is away.

        What is read `again` has its dead letters already, and leaves no others.
        """
        self._registry, self._wait = reading(settings), wait
        self._producer = None if again else confluent_kafka.Producer(config(settings))
        self._outcomes = settings.named(topics.OUTCOMES)
        self._tenants = settings.named(topics.TENANTS)
        self._levels = settings.named(topics.STOCK_LEVELS)
        self._verdicts = settings.named(topics.PRICES_VERDICTS)
        self._dead_letters = settings.named(topics.DEAD_LETTERS)
        self._exports = settings.named(topics.EXPORTS)
        self._redrives = settings.named(topics.REDRIVES)
        self._of_events = {self._outcomes, self._verdicts, self._exports, settings.named(topics.INGESTION_UNIQUE)}
        self._breaker = Breaker(1.0 if again else settings.dead_letter_limit, "this sink")
        self.policies = InForce()

    def prepare(self, records: list[confluent_kafka.Message]) -> Batch:
        """What these records say.

        Raises KafkaException when a dead letter was not taken, and Misconfigured before there are too many of them.
        """
        batch = Batch()
        refused: list[tuple[confluent_kafka.Message, Rejected, Position, Position]] = []
        newest: dict[int, bytes] = {}
        for record in records:
            at = Position(record.topic(), record.partition(), record.offset(), record.timestamp()[1])
            said: codec.Record | Message | None = None
            match at.topic:
                case self._levels:
                    if level := _take_level(batch, record):
                        newest[at.partition] = level
                case self._verdicts:
                    said = codec.decode(PRICE_VERDICTS, record.value())
                    batch.judged.append(said)
                    batch.up_to[at.topic, at.partition] = said["time_ms"]
                case self._outcomes:
                    said = _take_outcome(batch, record, at)
                case self._tenants:
                    batch.tenants += tenant_of(record, at)
                case self._dead_letters:
                    self._learn(record.value())
                    batch.letters.append(letter_of(record))
                case self._exports:
                    self._learn(record.value())
                    try:
                        batch.exports.append(asked_in(record))
                    except Rejected as exc:
                        refused.append((record, exc, at, at))
                case self._redrives:
                    batch.notes += redrives.read(record)
                case _:
                    said = message = self._take_message(batch, record, at)
                    if message.refused is not None:
                        refused.append((record, message.refused, at, message.envelope.src))
            if at.topic in self._of_events and (event := tracing.event_of(record.headers(), at, record.key())):
                if isinstance(said, dict):
                    event = replace(event, event_id=said["event_id"])
                batch.traced.append((event, said))
        verdicts = [
            (message.tenant_id, message.refused.code if message.refused else None) for message in batch.messages
        ]
        self._breaker.judge(verdicts)
        if self._producer is not None:
            for letter in refused:
                self._dead_letter(self._producer, *letter)
        self._breaker.count(verdicts)
        for partition, level in newest.items():
            # Other levels of the message that it came of may be in the next batch: all before that message are there.
            batch.up_to[self._levels, partition] = stock.decode_level(level).changed_at // 1000 - 1
        if self._producer is not None and self._producer.flush(30):
            # Not acknowledged: end without moving the offset, so that it is tried again.
            raise confluent_kafka.KafkaException(
                confluent_kafka.KafkaError(confluent_kafka.KafkaError._MSG_TIMED_OUT, "dead letters not taken")
            )
        return batch

    def _take_message(self, batch: Batch, record: confluent_kafka.Message, at: Position) -> Message:
        self._learn(record.value())
        message = prepare(record.key(), record.value(), record.headers(), at, self.policies.of)
        if message.policies is not None:
            self.policies.follow(message.tenant_id, message.policies, message.envelope.src.offset)
        batch.messages.append(message)
        batch.up_to[at.topic, at.partition] = message.envelope.src.time_ms
        return message

    def _learn(self, value: bytes | None) -> None:
        """Know what the schema id in a value means."""
        for pause in backoff():
            try:
                if self._registry is not None:
                    self._registry.learn(value)
                return
            except Unavailable as exc:
                log.warning("%s; waiting %.1f s", exc, pause)
                metrics.REGISTRY_WAITS.inc()
                self._wait(pause)

    def _dead_letter(
        self,
        producer: confluent_kafka.Producer,
        record: confluent_kafka.Message,
        refused: Rejected,
        at: Position,
        src: Position,
    ) -> None:
        """Set a record aside that lies `at`; `src` is where its source does."""
        log.warning("%s[%d]@%d: %s", at.topic, at.partition, at.offset, refused)
        metrics.DEAD_LETTERED.labels(refused.code).inc()
        why = Undecodable(refused.code, refused.detail)
        headers = dead_letter_headers(record.headers(), why, "sink", src)
        producer.produce(
            self._dead_letters,
            record.value(),
            record.key(),
            at.partition,
            headers=headers,
            on_delivery=_must_land,
        )


def _take_level(batch: Batch, record: confluent_kafka.Message) -> bytes | None:
    """The value of a level. Of several levels of a product the last is all that counts: they are absolute."""
    key: bytes = record.key() or b""
    value: bytes | None = record.value()
    if value is None or topics.parse_level_key(key) is None:
        return None
    batch.levels[key] = value
    return value


def _take_outcome(batch: Batch, record: confluent_kafka.Message, at: Position) -> codec.Record:
    """What the record says."""
    if type_of(record) != stock.OUTCOME:
        said = codec.decode(_OUTCOME, record.value())
        batch.outcomes.append(said)
        return said
    folded = codec.decode(stock.OUTCOME, record.value())
    batch.folded.append(folded)
    batch.up_to[at.topic, at.partition] = folded["time_ms"]
    return folded


def _must_land(error: confluent_kafka.KafkaError | None, _: confluent_kafka.Message) -> None:
    if error is not None:
        raise confluent_kafka.KafkaException(error)
