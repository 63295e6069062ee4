"""The alerts that somebody missed, read from the topic again: all since a position, which is then joined to the end."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Final, TypeVar

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from gateway.filters import bad
from gateway.live import Live, event_of
from gateway.watched import Event, Wanted
from schemas import topics
from schemas.errors import Unavailable

_RECORDS_AT_ONCE: Final = 500
_ANSWER_S: Final = 5.0
_SILENCE_S: Final = 15.0

Result = TypeVar("Result")


class Backfill:
    """Reads one tenant's alerts from an offset of its partition on, in threads: `open`, `missed`, and `close` after."""

    def __init__(self, live: Live, tenant_id: str, wanted: Wanted, partition: int, offset: int) -> None:
        self._live, self._key, self._wanted = live, topics.partition_key(tenant_id), wanted
        self.partition, self.position = partition, offset
        """Everything before `position` has been read."""

    async def open(self) -> None:
        """Raises Problem 400 for a position that the log does not have, Unavailable while Kafka is away."""
        await self._in_thread(self._open)

    async def missed(self) -> AsyncIterator[Event]:
        """What lies between `position` and the end as it is when that is reached; events without alerts tell the way.

        Raises Unavailable when Kafka goes away.
        """
        self._consumer.assign([TopicPartition(self._live.topic, self.partition, self.position)])
        while True:
            events, ended = await self._in_thread(self._read)
            for event in events:
                yield event
            if ended:
                return
            yield Event(self.partition, self.position - 1, [], 0)

    def close(self) -> None:
        """Let go of the connection, in a thread."""
        self._live.threads.submit(self._consumer.close)

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.wrap_future(self._live.threads.submit(work))

    def _open(self) -> None:
        self._consumer = confluent_kafka.Consumer(
            {
                **self._live.settings.kafka,
                "group.id": "unused",
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 20,
                "queued.max.messages.kbytes": 4_096,
                "log_level": 0,
            }
        )
        at = TopicPartition(self._live.topic, self.partition)
        try:
            first, end = self._consumer.get_watermark_offsets(at, timeout=_ANSWER_S)
        except KafkaException as exc:
            raise Unavailable(f"Kafka does not say where {self._live.topic} ends") from exc
        if not first <= self.position <= end:
            raise bad("Last-Event-ID", "Last-Event-ID is not in the log; leave it out to begin with what comes now")

    def _read(self) -> tuple[list[Event], bool]:
        """Alerts in the next records, and whether the end is reached."""
        events: list[Event] = []
        until = time.monotonic() + _SILENCE_S
        while time.monotonic() < until:
            records = self._consumer.consume(_RECORDS_AT_ONCE, timeout=0.1)
            for record in records:
                if (error := record.error()) is None:
                    self.position = record.offset() + 1
                    if (event := self._event(record)) is not None:
                        events.append(event)
                elif error.code() == KafkaError._PARTITION_EOF:
                    self.position = record.offset()  # past the markers of transactions
                    return events, True
            if records:
                return events, False
        raise Unavailable(f"Kafka does not answer for {self._live.topic}")

    def _event(self, record: confluent_kafka.Message) -> Event | None:
        """What is wanted of a record; None where there is nothing."""
        event = event_of(record) if record.key() == self._key else None
        return None if event is None else self._wanted.of(event)
