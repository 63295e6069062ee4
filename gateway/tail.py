"""The end of topics as they grow, for requests that wait for what becomes of their events.

Each gateway reads every partition, in no group, from the end as it was when it started, committed records only. A
request says what it waits for *before* it publishes, so that nothing can be missed in between. What nobody waits for
is not looked into; what a waiter does not fetch is bounded, a waiter that would pass the bound gets no more.
"""

import asyncio
import contextlib
import logging
import threading
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Self

import confluent_kafka
from confluent_kafka import TopicPartition

from gateway.problems import Problem
from schemas import metrics
from schemas.settings import Settings

log = logging.getLogger(__name__)

MAX_WAITERS: Final = 1_000
MAX_OF_TENANT: Final = 200
MAX_HELD_BYTES: Final = 64_000_000
"""Of values that wait to be fetched, all waiters together."""
_RECORDS_AT_ONCE: Final = 500
_LOOK_S: Final = 1.0

Awaited = tuple[bytes, bytes]
"""A tenant's key, and the `ce_subject` of a record: the id of the event that it is about."""


class Seen(NamedTuple):
    """A record that somebody waited for."""

    type: str
    value: bytes


class Tail:
    """`async with Tail(settings, [topics.OUTCOMES]) as tail:`, and `with tail.waiter(tenant_id, event_id) as waiter:`.

    `begins` is called with where it begins, `seen` with every record, both in the tail's thread.
    """

    def __init__(
        self,
        settings: Settings,
        topics: list[str],
        seen: Callable[[confluent_kafka.Message], None] = lambda record: None,
        begins: Callable[[list[TopicPartition]], None] = lambda ends: None,
    ) -> None:
        self._settings, self._topics = settings, [settings.named(topic) for topic in topics]
        self._seen, self._begins = seen, begins
        self._waiters: dict[Awaited, tuple[Waiter, ...]] = {}
        self._of_tenant: Counter[str] = Counter()
        self._stopping = threading.Event()
        self._begun = asyncio.Event()
        self._thread = threading.Thread(target=self._follow, name="tail", daemon=True)
        self.held = 0

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._stopping.set()
        await asyncio.to_thread(self._thread.join)

    async def begun(self, within: float) -> None:
        """Return when it knows where the topic ends, or when time is over: what comes before then it would miss."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._begun.wait()

    def waiter(self, tenant_id: str, *event_ids: str) -> "Waiter":
        """Registered from here on, until it is closed. Raises Problem 503 when too many wait."""
        if self._of_tenant.total() >= MAX_WAITERS or self._of_tenant[tenant_id] >= MAX_OF_TENANT:
            detail = f"{MAX_OF_TENANT} requests of a tenant, {MAX_WAITERS} of a gateway may wait; send it without wait"
            raise Problem(503, "too_many_streams", detail, retry_after=1)
        waiter = Waiter(self, tenant_id, [(tenant_id.encode(), event_id.encode()) for event_id in event_ids])
        for awaited in waiter.awaited:
            self._waiters[awaited] = (*self._waiters.get(awaited, ()), waiter)
        self._of_tenant[tenant_id] += 1
        metrics.WAITING.inc()
        return waiter

    def forget(self, waiter: "Waiter") -> None:
        """What `Waiter.close` does here."""
        for awaited in waiter.awaited:
            left = tuple(other for other in self._waiters.pop(awaited) if other is not waiter)
            if left:
                self._waiters[awaited] = left
        self._of_tenant[waiter.tenant_id] -= 1
        self._of_tenant += Counter()  # forgets who has none
        metrics.WAITING.dec()

    def _follow(self) -> None:
        consumer = confluent_kafka.Consumer(
            {
                **self._settings.kafka,
                "group.id": "unused",
                "enable.auto.commit": False,
                "auto.offset.reset": "latest",
                "isolation.level": "read_committed",
                "fetch.wait.max.ms": 50,
                "fetch.error.backoff.ms": 50,
                "queued.max.messages.kbytes": 16_384,
                "log_level": 0,
            }
        )
        while not self._stopping.is_set():
            if (ends := self._ends(consumer)) is not None:
                consumer.assign(ends)
                self._begins(ends)
                self._loop.call_soon_threadsafe(self._begun.set)
                break
            self._stopping.wait(_LOOK_S)
        while not self._stopping.is_set():
            first = consumer.poll(0.1)
            if first is not None:
                self._look(first, *consumer.consume(_RECORDS_AT_ONCE, timeout=0))
        consumer.close()

    def _ends(self, consumer: confluent_kafka.Consumer) -> list[TopicPartition] | None:
        """Where each partition ends now; None while Kafka is away."""
        at = []
        try:
            for topic in self._topics:
                for number in sorted(consumer.list_topics(topic, timeout=5).topics[topic].partitions):
                    partition = TopicPartition(topic, number)
                    _, partition.offset = consumer.get_watermark_offsets(partition, timeout=5)
                    at.append(partition)
        except confluent_kafka.KafkaException as exc:
            log.warning("%s: %s", topic, exc)
            return None
        return at or None

    def _look(self, *records: confluent_kafka.Message) -> None:
        for record in records:
            if record.error() is None:
                self._seen(record)
        if not self._waiters:
            return
        found = [each for record in records if (each := self._wanted(record))]
        if found:
            self._loop.call_soon_threadsafe(self._deliver, found)

    def _wanted(self, record: confluent_kafka.Message) -> tuple[Awaited, Seen] | None:
        if record.error() is not None:
            return None
        headers: dict[str, Any] = dict(record.headers() or ())
        # The tenant is a part of it: another's direct producer may give its events what ids it likes.
        awaited = (record.key() or b"", headers.get("ce_subject", b""))
        if awaited not in self._waiters:
            return None
        return awaited, Seen(headers["ce_type"].decode(), record.value() or b"")

    def _deliver(self, found: list[tuple[Awaited, Seen]]) -> None:
        for awaited, seen in found:
            for waiter in self._waiters.get(awaited, ()):
                waiter.put(seen)


class Waiter:
    """One request's share of a tail."""

    def __init__(self, tail: Tail, tenant_id: str, awaited: list[Awaited]) -> None:
        self._tail = tail
        self._seen: deque[Seen] = deque()
        self._more = asyncio.Event()
        self.tenant_id, self.awaited = tenant_id, awaited

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Wait no longer, and let go of what was not fetched."""
        self._tail.held -= sum(len(seen.value) for seen in self._seen)
        self._seen.clear()
        self._tail.forget(self)

    def put(self, seen: Seen) -> None:
        """Keep it until it is fetched, if there is room."""
        if self._tail.held + len(seen.value) <= MAX_HELD_BYTES:
            self._tail.held += len(seen.value)
            self._seen.append(seen)
            self._more.set()

    async def next(self) -> Seen:
        """The next record; wait for it as long as the caller likes."""
        while not self._seen:
            self._more.clear()
            await self._more.wait()
        seen = self._seen.popleft()
        self._tail.held -= len(seen.value)
        return seen
