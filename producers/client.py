"""An awaitable producer over librdkafka that returns when the broker has acknowledged.

confluent-kafka's own AIOProducer refuses headers. Here the event loop itself asks librdkafka for acknowledgements while
it is busy, and only where it would idle a thread waits in its place: a thread that takes each acknowledgement beside a
busy loop fights it for the interpreter's lock.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Iterable
from functools import cache
from types import TracebackType
from typing import Final, Self

import confluent_kafka

from producers import statistics
from producers.batches import Batch, Batches, batch_of
from producers.registry import Registry
from producers.rows import Row, encoded, kind_of
from schemas import metrics, topics
from schemas.envelope import Headers
from schemas.errors import Rejected, Unavailable
from schemas.settings import Settings

_TOO_LARGE: Final = {
    confluent_kafka.KafkaError.MSG_SIZE_TOO_LARGE,
    confluent_kafka.KafkaError.INVALID_MSG_SIZE,
    confluent_kafka.KafkaError.RECORD_LIST_TOO_LARGE,
}
_REGISTRY_PATIENCE_S: Final = 5.0
"""What a registry that is away may hold up a start; until it answers nothing is sent."""


def config(settings: Settings) -> dict[str, object]:
    """librdkafka settings that every producer of ours shares."""
    return {
        **settings.kafka,
        "client.id": "tillstream",
        "acks": "all",
        "enable.idempotence": True,
        "partitioner": topics.PARTITIONER,
        "compression.type": "lz4",
        "linger.ms": settings.linger_ms,
        "message.max.bytes": 4_000_000,
        "message.timeout.ms": round(settings.delivery_timeout_s * 1000),
    }


_LOOKS: Final = 8
"""Turns of the event loop without an acknowledgement, after which the thread waits."""
_Answer = tuple["asyncio.Future[int]", str, confluent_kafka.KafkaError | None, int | None]
"""Whose it is, the topic, what went wrong, and the offset."""
_WAIT_S: Final = 0.1
_produced: Final = cache(metrics.PRODUCED.labels)


class Producer:
    """Sends messages of tenants; use as `async with Producer(Settings.from_env()) as producer:`."""

    def __init__(self, settings: Settings) -> None:
        self._kafka = confluent_kafka.Producer(
            config(settings)
            | {
                # Above this the caller is told at once; nothing queues without bound while Kafka is away.
                "queue.buffering.max.kbytes": settings.max_inflight_bytes // 1024,
                "queue.buffering.max.messages": 100_000,
                "error_cb": self._on_error,
                "statistics.interval.ms": statistics.EVERY_MS,
                "stats_cb": statistics.of_producer,
            }
        )
        self._named = settings.named
        self._registry = Registry(settings.schema_registry_url) if settings.schema_registry_url else None
        self._registering: asyncio.Task[None] | None = None
        self._longest_s = settings.delivery_timeout_s + 1
        self._sent: set[asyncio.Future[int]] = set()
        """What has no answer yet."""
        self._answers: deque[_Answer] = deque()
        self._looking = False
        self._empty_looks = 0
        self._idle = threading.Event()
        self._stopping = False
        self._waiter = threading.Thread(target=self._wait, name="producer-wait", daemon=True)
        self.last_error: str | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._waiter.start()
        if self._registry is not None:
            self._registering = asyncio.create_task(self._registry.register())
            await asyncio.wait({self._registering}, timeout=_REGISTRY_PATIENCE_S)
            if self._registering.done():
                self._registering.result()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Wait for what was sent. Raises what `send` does where a message was not taken and nobody waited for it.

        Nothing is sent after it.
        """
        if self._registering is not None:
            self._registering.cancel()
        waiting = list(self._sent)
        left = await asyncio.to_thread(self._kafka.flush, self._longest_s)
        if left:  # an error is told of these, now or by their futures, and then they must not be sent
            self._kafka.purge()
            self._kafka.poll(0)
        self._stopping = True
        self._idle.set()
        await asyncio.to_thread(self._waiter.join)
        self._settle_all()
        if kind is not None:
            return
        for sent in waiting:
            if sent.done() and not sent.cancelled():
                sent.result()
        if left:
            raise Unavailable(f"Kafka did not acknowledge {left} messages")

    def send(
        self,
        topic: str,
        key: bytes,
        value: bytes | None,
        headers: Headers | None = None,
        *,
        partition: int = -1,
    ) -> "asyncio.Future[int]":
        """Hand a message to librdkafka and return a future of its offset.

        The future raises Rejected for a message that is too large and Unavailable when the broker did not acknowledge
        it within `delivery_timeout_s`, and a second more at most. From then on librdkafka has forgotten the message and
        never sends it again by itself. What had left for the broker before may have landed, or land when a broker that
        was stopped goes on: whether it did is unknown, so send it again under the same event id, which counts once.
        Raises Unavailable at once, for a message that then was not taken, when too many bytes wait already.
        """
        if self._registry is not None and value is not None:
            value = self._registry.framed(value)
        done: asyncio.Future[int] = self._loop.create_future()

        def delivered(error: confluent_kafka.KafkaError | None, message: confluent_kafka.Message) -> None:
            self._answers.append((done, topic, error, message.offset()))

        try:
            self._kafka.produce(topic, value, key, partition, on_delivery=delivered, headers=headers)
        except BufferError as exc:
            metrics.PRODUCE_ERRORS.labels(topic, "queue_full").inc()
            raise Unavailable("too many bytes wait for Kafka") from exc
        except confluent_kafka.KafkaException as exc:
            done.set_exception(_translate(exc.args[0]))
            return done
        self._sent.add(done)
        if not self._idle.is_set():
            self._look_soon()
        return done

    async def publish_batch(
        self,
        tenant_id: str,
        entity: str,
        rows: Iterable[Row],
        *,
        event_id: str,
        currency: str = "",
        source: str = "direct",
        traceparent: bytes | None = None,
    ) -> int:
        """Publish 1 to 1,000 rows (see `producers.rows`) as one message; return its offset.

        `event_id` is what protects a resend: give a batch the same id at every try. `currency` is that of rows that
        name none. Errors as `send`, and Rejected for a row that is wrong: then nothing is sent.
        """
        kind = kind_of(entity)
        parts = [encoded(kind.entity, row, line, currency) for line, row in enumerate(rows, start=1)]
        return await self.send_batch(batch_of(kind, tenant_id, parts, event_id, source, traceparent))

    def send_batch(self, batch: Batch) -> "asyncio.Future[int]":
        """`send` a batch."""
        return self.send(self._named(batch.topic), batch.key, batch.value, batch.headers)

    def batches(self, *, name: str | None = None, linger_s: float | None = 1.0, source: str = "direct") -> Batches:
        """Gather rows that come one at a time into messages of at most 1,000 rows and 900 KB.

        A message goes when it is full, when its first row has waited `linger_s`, or at the end of the block. Its event
        id is made of `name` (a random one where there is none) and of the numbers of its rows, tenant by tenant. With
        a `name` of your own and `linger_s=None` the same rows make the same messages in another process too, which
        are then known as sent already.
        """
        return Batches(self.send_batch, name, linger_s, source)

    def _look_soon(self) -> None:
        if not self._looking:
            self._looking, self._empty_looks = True, 0
            self._loop.call_soon(self._look)

    def _look(self) -> None:
        """Settle what has been acknowledged, and look again in the loop's next turn, or let the thread wait."""
        self._kafka.poll(0)
        self._empty_looks = 0 if self._answers else self._empty_looks + 1
        self._settle_all()
        self._looking = bool(self._sent) and self._empty_looks < _LOOKS
        if self._looking:
            self._loop.call_soon(self._look)
        elif self._sent:
            self._idle.set()

    def _settle_all(self) -> None:
        while self._answers:
            answer = self._answers.popleft()
            self._sent.discard(answer[0])
            _settle(*answer)

    def _wait(self) -> None:
        """In the thread: wait for an acknowledgement when the event loop idles, and wake it."""
        while not self._stopping:
            if not self._idle.wait(_WAIT_S):
                self._kafka.poll(0)  # tells errors of the connection, too
                continue
            while not self._answers and not self._stopping:
                self._kafka.poll(_WAIT_S)
            self._idle.clear()
            self._loop.call_soon_threadsafe(self._look_soon)

    def _on_error(self, error: confluent_kafka.KafkaError) -> None:
        self.last_error = error.str()


def _settle(
    done: "asyncio.Future[int]", topic: str, error: confluent_kafka.KafkaError | None, offset: int | None
) -> None:
    if done.done():  # the caller went away
        return
    if error is None:
        _produced(topic).inc()
        done.set_result(offset if offset is not None else -1)
    else:
        metrics.PRODUCE_ERRORS.labels(topic, error.name()).inc()
        done.set_exception(_translate(error))


def _translate(error: confluent_kafka.KafkaError) -> Rejected | Unavailable:
    if error.code() in _TOO_LARGE:
        return Rejected("message_too_large", "a message may have 1,000,000 bytes at most")
    return Unavailable(f"Kafka did not acknowledge: {error.str()}")
