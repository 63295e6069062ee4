"""Rows in, one at a time; messages out: full ones at once, the others when they have waited or at the end."""

import asyncio
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from producers.rows import Kind, Row, encoded, kind_of
from schemas import codec, envelope, topics
from schemas.envelope import Headers
from schemas.errors import Rejected, Unavailable

MAX_UNDER_WAY: Final = 32
"""Batches that may wait for their acknowledgement before `add` waits too: 29 MB at most."""
_MAX_NAME: Final = 100
_ROOM_FOR_HEAD: Final = 1_000


@dataclass(frozen=True, slots=True)
class Batch:
    """A message ready to be sent, and sent again: the event id stays what it is."""

    topic: str
    key: bytes
    value: bytes
    headers: Headers
    event_id: str


def batch_of(
    kind: Kind, tenant_id: str, rows: list[bytes], event_id: str, source: str, traceparent: bytes | None = None
) -> Batch:
    """A batch of encoded rows, accepted now. Raises Rejected when they are too many or too large for one message."""
    if not 1 <= len(rows) <= kind.max_rows:
        raise Rejected("too_many_rows", f"a batch has 1 to {kind.max_rows} rows, not {len(rows)}")
    value = codec.frame(kind.entity.type, tenant_id, rows)
    if len(value) > topics.MAX_MESSAGE_BYTES:
        raise Rejected("batch_too_large", f"a batch has {topics.MAX_MESSAGE_BYTES} bytes at most, not {len(value)}")
    headers = envelope.headers_of(
        event_id=event_id,
        type=kind.entity.type,
        source=source,
        accepted_ms=time.time_ns() // 1_000_000,
        rows=len(rows),
        value=value,
        traceparent=traceparent,
    )
    return Batch(kind.topic, topics.partition_key(tenant_id), value, headers, event_id)


@dataclass(slots=True)
class _Open:
    """Rows of one tenant and entity: those that wait, and how many came before them."""

    kind: Kind
    tenant_id: str
    rows: list[bytes] = field(default_factory=list)
    size: int = 0
    before: int = 0
    lapse: asyncio.TimerHandle | None = None


class Batches:
    """Use as `async with producer.batches() as batches:`, see `Producer.batches`.

    A row is in Kafka when a `flush` after it, or the end of the block, has not raised.
    """

    def __init__(
        self, send: "Callable[[Batch], asyncio.Future[int]]", name: str | None, linger_s: float | None, source: str
    ) -> None:
        if name is not None and not 1 <= len(name) <= _MAX_NAME:
            raise Rejected("bad_name", f"a name has 1 to {_MAX_NAME} characters")
        self._hand_over, self._linger_s, self._source = send, linger_s, source
        self._name = name or str(uuid.uuid4())
        self._loop = asyncio.get_running_loop()
        self._turn = threading.Lock()
        self._open: dict[tuple[str, str], _Open] = {}
        self.under_way = 0
        """Batches that wait for their acknowledgement."""
        self._fewer = asyncio.Event()
        self._failed: list[tuple[Batch, Rejected | Unavailable]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Flush. After an exception in the block wait only for what was sent, so that a second run splits alike."""
        if exc is None:
            await self.flush()
            return
        with self._turn:
            for waiting in self._open.values():
                self._forget(waiting)
        await self.room(0)
        for batch, error in self._failed:
            exc.add_note(f"batch {batch.event_id} was not sent either: {error}")

    async def add(self, tenant_id: str, entity: str, row: Row, *, currency: str = "") -> None:
        """Take a row; wait while too many batches are under way.

        Raises Rejected for a row that is wrong, and what `flush` raises for batches that have failed: `flush` then
        sends them again. The row is not taken when it raises. `currency` is that of a row that names none.
        """
        self.put(tenant_id, entity, row, currency)
        await self.room()

    async def flush(self) -> None:
        """Send all that waits, and what failed before; return when Kafka has acknowledged everything.

        Raises Unavailable when it did not: call it again, the event ids stay the same.
        """
        with self._turn:
            for waiting in self._open.values():
                self._seal(waiting)
            again, self._failed = self._failed, []
            self.under_way += len(again)
        for batch, _ in again:
            self._send(batch)
        await self.room(0)
        self.check()

    def put(self, tenant_id: str, entity: str, row: Row, currency: str = "") -> None:
        """`add` without waiting, from any thread."""
        self.check()
        with self._turn:
            waiting = self._open.get((tenant_id, entity))
            if waiting is None:
                waiting = self._open[tenant_id, entity] = _Open(kind_of(entity), tenant_id)
            part = encoded(waiting.kind.entity, row, len(waiting.rows) + 1, currency)
            if len(part) > (most := topics.MAX_MESSAGE_BYTES - _ROOM_FOR_HEAD):
                raise Rejected("row_too_large", f"one row may have {most} bytes, not {len(part)}")
            if waiting.size + len(part) > most:
                self._seal(waiting)
                part = encoded(waiting.kind.entity, row, 1, currency)
            waiting.rows.append(part)
            waiting.size += len(part)
            if len(waiting.rows) == waiting.kind.max_rows:
                self._seal(waiting)
            elif len(waiting.rows) == 1 and self._linger_s is not None:
                self._loop.call_soon_threadsafe(self._linger, waiting, waiting.before)

    def check(self) -> None:
        """Raise what batches have failed with."""
        if not self._failed:
            return
        batch, error = self._failed[0]
        if isinstance(error, Rejected):  # it would be refused again
            del self._failed[0]
            raise Rejected(error.code, f"batch {batch.event_id}: {error.detail}") from error
        others = f" and {len(self._failed) - 1} more" if self._failed[1:] else ""
        raise Unavailable(f"batch {batch.event_id}{others} not acknowledged, flush() sends again: {error}") from error

    async def room(self, most: int = MAX_UNDER_WAY - 1) -> None:
        """Wait until at most so many batches are under way."""
        while self.under_way > most:
            self._fewer.clear()
            await self._fewer.wait()

    def _linger(self, waiting: _Open, before: int) -> None:
        assert self._linger_s is not None
        if waiting.before == before:
            waiting.lapse = self._loop.call_later(self._linger_s, self._lapsed, waiting, before)

    def _lapsed(self, waiting: _Open, before: int) -> None:
        with self._turn:
            if waiting.before == before:
                self._seal(waiting)

    def _seal(self, waiting: _Open) -> None:
        """Make a batch of the rows that wait and have the loop send it."""
        if not waiting.rows:
            return
        first, last = waiting.before + 1, waiting.before + len(waiting.rows)
        event_id = f"{self._name}/{waiting.kind.entity.name}/{first}-{last}"
        batch = batch_of(waiting.kind, waiting.tenant_id, waiting.rows, event_id, self._source)
        self._forget(waiting)
        self.under_way += 1
        self._loop.call_soon_threadsafe(self._send, batch)

    def _forget(self, waiting: _Open) -> None:
        waiting.before += len(waiting.rows)
        waiting.rows, waiting.size = [], 0
        if waiting.lapse is not None:
            self._loop.call_soon_threadsafe(waiting.lapse.cancel)
            waiting.lapse = None

    def _send(self, batch: Batch) -> None:
        try:
            sent = self._hand_over(batch)
        except Unavailable as exc:
            self._settled(batch, exc)
            return
        sent.add_done_callback(lambda done: self._settled(batch, done.exception()))

    def _settled(self, batch: Batch, error: BaseException | None) -> None:
        if isinstance(error, Rejected | Unavailable):
            self._failed.append((batch, error))
        with self._turn:
            self.under_way -= 1
        self._fewer.set()
