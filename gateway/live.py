"""Alerts on prices as they are made, for the requests that watch: one look at each record serves all of them.

`Live.seen` is called by the gateway's tail with every record. What a tenant's readers did not fetch yet is the same
bytes for all of them; a reader that falls too far behind is told so, and gets no more.
"""

import asyncio
import logging
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import confluent_kafka
import msgspec
from confluent_kafka import TopicPartition

from gateway.judged import alert
from gateway.problems import Problem
from gateway.watched import ALL, Event, Facts, Wanted
from schemas import codec, metrics, topics
from schemas.errors import Undecodable
from schemas.prices import PRICE_VERDICTS, alarming
from schemas.settings import Settings

log = logging.getLogger(__name__)

MAX_READERS: Final = 1_000
MAX_OF_TENANT: Final = 600
MAX_BEHIND_BYTES: Final = 4_000_000
"""Of alerts that a reader has not fetched; one message alone may have more."""
MAX_HELD_BYTES: Final = 64_000_000
"""Of all readers together, above which those go that are behind by FAIR_BYTES."""
FAIR_BYTES: Final = 64_000
_BACKFILLS_AT_ONCE: Final = 4


def event_of(record: confluent_kafka.Message) -> Event | None:
    """The alerts in a record; None where there is none."""
    try:
        batch = codec.decode(PRICE_VERDICTS, record.value())
    except Undecodable as exc:  # of a newer version than this gateway
        log.error("%s[%d]@%d: %s", record.topic(), record.partition(), record.offset(), exc)
        return None
    rows = [(index, row) for index, row in enumerate(batch["rows"]) if alarming(row)]
    if not rows:
        return None
    alerts = [msgspec.json.encode(alert(batch, index, row)) for index, row in rows]
    facts = tuple(Facts.of(batch, row) for _, row in rows)
    return Event(record.partition(), record.offset(), alerts, sum(map(len, alerts)), facts)


class Live:
    """The readers of a gateway, by tenant, and the threads in which what they missed is read from the topic."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.topic = settings, settings.named(topics.PRICES_VERDICTS)
        self.threads = ThreadPoolExecutor(_BACKFILLS_AT_ONCE, thread_name_prefix="backfill")
        self.positions: dict[int, int] = {}
        """The last offset of each partition that was seen; alerts up to it are with their readers, or on the way."""
        self.held = 0
        self._readers: dict[bytes, tuple[Reader, ...]] = {}
        self._of_tenant: Counter[str] = Counter()

    def reader(self, tenant_id: str, wanted: Wanted = ALL) -> "Reader":
        """A place among the readers, until it is closed. Raises Problem 503 when there are too many."""
        if self._of_tenant.total() >= MAX_READERS or self._of_tenant[tenant_id] >= MAX_OF_TENANT:
            detail = f"{MAX_OF_TENANT} streams of a tenant, {MAX_READERS} of a gateway; try again when one has ended"
            raise Problem(503, "too_many_streams", detail, retry_after=5)
        self._of_tenant[tenant_id] += 1
        metrics.ALERT_STREAMS.inc()
        return Reader(self, tenant_id, wanted)

    def add(self, reader: "Reader") -> None:
        """What `Reader.listen` does here."""
        self._readers[reader.key] = (*self._readers.get(reader.key, ()), reader)

    def forget(self, reader: "Reader") -> None:
        """What `Reader.close` does here."""
        left = tuple(other for other in self._readers.pop(reader.key, ()) if other is not reader)
        if left:
            self._readers[reader.key] = left
        self._of_tenant[reader.tenant_id] -= 1
        self._of_tenant += Counter()  # forgets who has none
        metrics.ALERT_STREAMS.dec()

    def begins(self, ends: list[TopicPartition]) -> None:
        """Everything before here was there before this gateway; runs in the tail's thread."""
        self.positions |= {end.partition: end.offset - 1 for end in ends if end.topic == self.topic}

    def seen(self, record: confluent_kafka.Message) -> None:
        """Hand the alerts of a record to its tenant's readers. Runs in the tail's thread."""
        if record.topic() != self.topic:
            return
        key = record.key() or b""
        if (readers := self._readers.get(key)) and (event := event_of(record)) is not None:
            readers[0].loop.call_soon_threadsafe(self._deliver, key, event)
        self.positions[record.partition()] = record.offset()

    def close(self) -> None:
        """Wait for the threads."""
        self.threads.shutdown()

    def _deliver(self, key: bytes, event: Event) -> None:
        for reader in self._readers.get(key, ()):
            reader.put(event)


class Reader:
    """One request's share: `listen`, then `next`, and `close` in any case."""

    def __init__(self, live: Live, tenant_id: str, wanted: Wanted) -> None:
        self._live, self.wanted = live, wanted
        self._events: deque[Event] = deque()
        self._behind = 0
        self._more = asyncio.Event()
        self.tenant_id, self.key, self.loop = tenant_id, tenant_id.encode(), asyncio.get_running_loop()
        self.ended = ""
        """Why nothing more comes, as a code."""

    def listen(self) -> None:
        """From here on every alert is kept for `next`."""
        self._live.add(self)

    def put(self, seen: Event) -> None:
        """Keep what is wanted of it until it is fetched, or end for being too far behind."""
        if self.ended or (event := self.wanted.of(seen)) is None:
            return
        behind = self._behind + event.size
        crowded = self._live.held + event.size > MAX_HELD_BYTES and behind > FAIR_BYTES
        if self._events and (behind > MAX_BEHIND_BYTES or crowded):
            self.drop()
            return
        self._count(event.size)
        self._events.append(event)
        self._more.set()

    def drop(self) -> None:
        """End for being too slow."""
        if not self.ended:
            metrics.ALERT_READERS_DROPPED.inc()
        self.end("too_slow")

    def end(self, code: str) -> None:
        """Let nothing more come, and let go of what was not fetched."""
        self.ended = self.ended or code
        self._events.clear()
        self._count(-self._behind)
        self._more.set()

    def close(self) -> None:
        """Give up the place."""
        self.end("closed")
        self._live.forget(self)

    async def next(self, within: float) -> Event | None:
        """The next alerts; None when there are none within so many seconds, or none any more."""
        if not self._events and not self.ended:
            self._more.clear()
            try:
                async with asyncio.timeout(within):
                    await self._more.wait()
            except TimeoutError:
                return None
        if not self._events:
            return None
        event = self._events.popleft()
        self._count(-event.size)
        return event

    async def position(self, partition: int) -> int:
        """The offset up to which nothing is missing now; -1 where that is not known."""
        position = self._live.positions.get(partition, -1)
        await asyncio.sleep(0)  # what was seen before has been handed over then
        return -1 if self._events or self.ended else position

    def _count(self, size: int) -> None:
        self._behind += size
        self._live.held += size
