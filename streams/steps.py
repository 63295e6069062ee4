"""Steps: what one source message leaves behind, flushed in one Kafka transaction.

Per assigned partition there is one confluent-kafka producer with `transactional.id = <app>-<partition>`. A step is
everything one message causes: outputs and the changes of all tables. While one transaction is under
way the next steps gather, so that many share a flush. Messages are acknowledged, in offset order, only when their
flush has been committed. A step or a flush that fails ends the process: nothing of it is committed, the supervisor
restarts, the messages come again. (Faust acknowledges an event even when its agent raises: faust-streaming#527.)
"""

import asyncio
import logging
import os
import threading
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

import confluent_kafka

from producers.breaker import Breaker
from producers.client import config
from producers.lag import Lag
from schemas import metrics, topics, tracing
from schemas.envelope import Headers, Position, tenant_text
from schemas.errors import Misconfigured, Unavailable
from schemas.settings import Settings

log = logging.getLogger(__name__)

EXIT_CODE: Final = 70  # EX_SOFTWARE
MISCONFIGURED: Final = 2
_ENVIRONMENT: Final = (MemoryError, OSError, Unavailable)
"""What no message is to blame for, however often it happens at one."""
_MAX_PENDING: Final = 20_000
"""Weight that may wait for a flush before the agents pause."""
_BYTES_A_RECORD: Final = 2_000
"""A step weighs as much as its records, or as its outputs' bytes where they are larger than this."""
_LEAST_WEIGHT: Final = 20
_COMMIT_S: Final = 60.0


def size_of(key: bytes | None, value: bytes | None, headers: Headers | None) -> int:
    """Bytes of a message, roughly as Kafka counts them."""
    return len(key or b"") + len(value or b"") + sum(len(name) + len(raw or b"") + 10 for name, raw in headers or ())


Record = tuple[str, bytes | None, bytes | None, Headers | None]
Changes = dict[bytes, Any]


@dataclass(slots=True)
class Step:
    """What one message leaves behind: outputs, by `send`, and the new values of each table's keys, None for no more.

    Of a key that several steps of a flush change, only the last value is written.
    """

    event: Any
    at: Position
    began_ns: int
    """Unix time."""
    records: list[Record] = field(default_factory=list)
    changes: dict[str, Changes] = field(default_factory=dict)
    sent_bytes: int = 0
    refused: str | None = None
    """The code under which the message is dead-lettered."""
    decision: str = "known"
    """What became of it; one from before the fence is known."""

    def changes_of(self, table: str) -> Changes:
        """The changes of a table, to be added to."""
        return self.changes.setdefault(table, {})

    @property
    def weight(self) -> int:
        """What it counts among what waits for a flush."""
        records = len(self.records) + sum(map(len, self.changes.values()))
        return max(_LEAST_WEIGHT, records, self.sent_bytes // _BYTES_A_RECORD)

    def send(self, topic: str, key: bytes | None, value: bytes | None, headers: Headers | None = None) -> None:
        """Add an output to a topic of the catalogue; it goes to the partition number of the source.

        Raises ValueError for what Kafka would refuse: found only in the flush, it could not be laid to this message.
        """
        if (size := size_of(key, value, headers)) > topics.MAX_FORWARDED_BYTES:
            raise ValueError(f"an output to {topic} has more than {topics.MAX_FORWARDED_BYTES} bytes")
        self.sent_bytes += size
        self.records.append((topic, key, value, headers))


Acknowledge = Callable[[Any], Awaitable[Any]]
CrashNote = Callable[[Position], tuple[str, bytes, bytes]]
"""Table, key and value of the note that counts one more crash at a position."""
Encode = Callable[[bytes, Any], bytes]
"""Key and value of a table to the value in its changelog."""


class Steps:
    """The open steps of this worker and the transactional producers that flush them."""

    def __init__(self, app_id: str, settings: Settings) -> None:
        self._app_id = app_id
        self._named = settings.named
        # What waits is bounded here, by _MAX_PENDING.
        self._config = config(settings) | {"queue.buffering.max.messages": 0}
        self._producers: dict[int, confluent_kafka.Producer] = {}
        self._pending: dict[int, list[tuple[Step, Acknowledge]]] = defaultdict(list)
        self._flushing: dict[int, asyncio.Task[None]] = {}
        self._turns: dict[int, threading.Lock] = defaultdict(threading.Lock)
        self._waiting = 0
        self._room = asyncio.Event()
        self._room.set()
        self._fenced_for: tuple[int, frozenset[int]] | None = None
        self.ends: dict[tuple[str, int], int] = {}
        """End of each partition that we wrote to, as our own last transaction left it."""
        self.crash_notes: dict[str, CrashNote] = {}
        """For each source topic, by its real name."""
        self.breaker = Breaker(settings.dead_letter_limit, "this worker of streams")
        self.encoders: dict[str, Encode] = {}
        self.lag = Lag(settings.prefix)
        """For each table whose values are not bytes."""

    async def fence(self, partitions: frozenset[int], generation: int) -> None:
        """Become the only writer of these partitions.

        A predecessor, a paused zombie included, can commit nothing from here on; what it left open is aborted.
        Every table asks for it at each rebalance; once is enough.
        """
        if self._fenced_for == (generation, partitions):
            return
        # What is still waiting is in our tables already, so it must be in the changelog too before that is compared.
        await asyncio.gather(*self._flushing.values())
        ready = await asyncio.gather(*(asyncio.to_thread(self._new_producer, p) for p in partitions))
        self._producers = dict(zip(partitions, ready, strict=True))
        self._fenced_for = (generation, partitions)

    def _new_producer(self, partition: int) -> confluent_kafka.Producer:
        producer = confluent_kafka.Producer(
            self._config
            | {
                "transactional.id": f"{self._app_id}-{partition}",
                "transaction.timeout.ms": round(_COMMIT_S * 1000),
                "linger.ms": 1,
            }
        )
        producer.init_transactions(_COMMIT_S)
        return producer

    @contextmanager
    def of(self, event: Any, acknowledge: Acknowledge) -> Iterator[Step]:
        """The step of `event`: whole when the block ends, and the end of the process when the block raises.

        The block must not await, so that no half step is ever flushed.
        """
        message, began_ns = event.message, time.time_ns()
        at = Position(message.topic, message.partition, message.offset, round(message.timestamp * 1000))
        step = Step(event, at, began_ns)
        try:
            yield step
            verdict = [(tenant_text(event.message.key), step.refused)]
            self.breaker.judge(verdict)
            self.breaker.count(verdict)
        except Misconfigured as exc:
            fail_stop(f"{at.topic}[{at.partition}]@{at.offset}: {exc}", None, MISCONFIGURED)
        except _ENVIRONMENT as exc:
            fail_stop(f"{at.topic}[{at.partition}]@{at.offset} met a fault that is not its own", exc)
        except Exception as exc:  # whatever it is, the event must not be acknowledged
            self._crashed(at, exc)
        self._pending[at.partition].append((step, acknowledge))
        self._waiting += step.weight
        if self._waiting >= _MAX_PENDING:
            self._room.clear()
        if at.partition not in self._flushing:
            self._flushing[at.partition] = asyncio.create_task(self._flush(at.partition))

    @property
    def waiting(self) -> int:
        """Weight of what waits for its flush."""
        return self._waiting

    def busy(self, partition: int) -> bool:
        """Whether steps of a partition wait for their flush, or are in one."""
        return partition in self._flushing

    async def room(self) -> None:
        """Wait while too much waits for its flush."""
        await self._room.wait()

    async def _flush(self, partition: int) -> None:
        try:
            while pending := self._pending.pop(partition, []):
                self._waiting -= sum(step.weight for step, _ in pending)
                self._room.set()
                steps = [step for step, _ in pending if step.records or step.changes]
                if steps:
                    started = time.perf_counter()
                    await asyncio.to_thread(self._transact, partition, steps)
                    metrics.FLUSH_SECONDS.observe(time.perf_counter() - started)
                    metrics.FLUSH_MESSAGES.observe(len(pending))
                for step, acknowledge in pending:
                    await acknowledge(step.event)
                    _trace(step)
                for at in {step.at.topic: step.at for step, _ in pending}.values():
                    self.lag.done((at.topic, at.partition), at.offset, at.time_ms / 1000)
        except Exception as exc:  # a flush that failed may or may not have landed: only a restart can tell
            fail_stop(f"flush of partition {partition} failed", exc)
        finally:
            del self._flushing[partition]

    def _transact(self, partition: int, steps: list[Step]) -> None:
        with self._turns[partition]:
            self._commit(self._producers[partition], partition, steps)

    def _commit(self, producer: confluent_kafka.Producer, partition: int, steps: list[Step]) -> None:
        ends: dict[tuple[str, int], int] = {}

        def delivered(error: confluent_kafka.KafkaError | None, message: confluent_kafka.Message) -> None:
            if error is None:
                ends[message.topic(), partition] = message.offset() + 2  # the commit marker takes one

        producer.begin_transaction()
        for step in steps:
            for topic, key, value, headers in step.records:
                producer.produce(self._named(topic), value, key, partition, headers=headers)
        for table, changes in _merged(steps).items():
            produce, encode, name = producer.produce, self.encoders.get(table, _as_it_is), self._named(table)
            last_key, last = changes.popitem()
            for key, value in changes.items():
                produce(name, value if value is None else encode(key, value), key, partition)
            produce(name, last if last is None else encode(last_key, last), last_key, partition, on_delivery=delivered)
        producer.commit_transaction(_COMMIT_S)
        producer.poll(0)
        self.ends |= ends

    def _crashed(self, at: Position, exc: Exception) -> NoReturn:
        """Flush the steps before this one, count the crash where the partition's next owner finds it, then end."""
        try:
            steps = [step for step, _ in self._pending[at.partition]]
            table, key, value = self.crash_notes[at.topic](at)
            self._transact(at.partition, [*steps, Step(None, at, 0, changes={table: {key: value}})])
        finally:  # counted or not, the process ends here: an exception that got out would be acknowledged by Faust
            fail_stop(f"{at.topic}[{at.partition}]@{at.offset} could not be processed", exc)


def _merged(steps: list[Step]) -> dict[str, Changes]:
    """The last value of each key that these steps change, a table."""
    merged: dict[str, Changes] = {}
    for step in steps:
        for table, changes in step.changes.items():
            if changes:
                merged.setdefault(table, {}).update(changes)
    return merged


def _trace(step: Step) -> None:
    """Say of a message whose trace is sampled that it has been processed."""
    if (event := tracing.event_of(step.event.message.headers, step.at, step.event.message.key)) is not None:
        refused = {} if step.refused is None else {"code": step.refused}
        tracing.done("process", step.began_ns, event, outcome=step.decision, **refused)


def _as_it_is(_: bytes, value: bytes) -> bytes:
    return value


def refuse(exc: Misconfigured) -> NoReturn:
    """End the process now, as a start with these settings would: going on would be wrong until somebody acts."""
    log.critical("%s", exc)
    logging.shutdown()
    os._exit(MISCONFIGURED)


def fail_stop(what: str, exc: BaseException | None, code: int = EXIT_CODE) -> NoReturn:
    """End the process now, without committing anything."""
    log.critical("%s; ending this process, nothing of it is committed", what, exc_info=exc)
    logging.shutdown()
    os._exit(code)
