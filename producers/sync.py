"""The producer for programs without asyncio: its event loop runs in a thread."""

import asyncio
import threading
from collections.abc import Coroutine, Iterable
from types import TracebackType
from typing import Any, Self, TypeVar

from producers.batches import MAX_UNDER_WAY, Batches
from producers.client import Producer
from producers.rows import Row
from schemas.settings import Settings

T = TypeVar("T")


class SyncProducer:
    """`Producer` that blocks: `with SyncProducer(Settings.from_env()) as producer:`. Any thread may call it."""

    def __init__(self, settings: Settings) -> None:
        self._producer = Producer(settings)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="producer-loop", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._wait_for(self._producer.__aenter__())
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        """As `Producer.__aexit__`."""
        try:
            self._wait_for(self._producer.__aexit__(kind, exc, tb))
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def publish_batch(
        self,
        tenant_id: str,
        entity: str,
        rows: Iterable[Row],
        *,
        event_id: str,
        currency: str = "",
        source: str = "direct",
    ) -> int:
        """As `Producer.publish_batch`."""
        batch = self._producer.publish_batch(
            tenant_id, entity, rows, event_id=event_id, currency=currency, source=source
        )
        return self._wait_for(batch)

    def batches(
        self, *, name: str | None = None, linger_s: float | None = 1.0, source: str = "direct"
    ) -> "SyncBatches":
        """As `Producer.batches`: `with producer.batches() as batches:`."""

        async def made() -> Batches:
            return self._producer.batches(name=name, linger_s=linger_s, source=source)

        return SyncBatches(self._wait_for(made()), self)

    def _wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


class SyncBatches:
    """`Batches` that block."""

    def __init__(self, batches: Batches, producer: SyncProducer) -> None:
        self._batches, self._wait_for = batches, producer._wait_for

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        """As `Batches.__aexit__`."""
        self._wait_for(self._batches.__aexit__(kind, exc, tb))

    def add(self, tenant_id: str, entity: str, row: Row, *, currency: str = "") -> None:
        """As `Batches.add`."""
        self._batches.put(tenant_id, entity, row, currency)
        if self._batches.under_way >= MAX_UNDER_WAY:
            self._wait_for(self._batches.room())

    def flush(self) -> None:
        """As `Batches.flush`."""
        self._wait_for(self._batches.flush())
