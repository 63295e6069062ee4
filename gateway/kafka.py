"""Whether Kafka answers, asked once a second, so that a request need not wait to find out."""

import asyncio
import contextlib
import logging
from types import TracebackType
from typing import Self

import confluent_kafka
from confluent_kafka.admin import AdminClient

from schemas import topics
from schemas.settings import Settings

log = logging.getLogger(__name__)


class Reachability:
    """`reachable` is what the last look said; it starts true, since the first request finds out anyway."""

    def __init__(self, settings: Settings) -> None:
        self._admin = AdminClient(
            {
                **settings.kafka,
                "log_level": 0,
                "socket.timeout.ms": 3_000,
            }
        )
        self._topic = settings.named(topics.INGESTION)
        self.reachable = True
        self.partitions: int | None = None
        """How many each topic has, once Kafka has said it; the count never changes."""

    async def __aenter__(self) -> Self:
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._watching

    async def _watch(self) -> None:
        while True:
            reachable = await asyncio.to_thread(self._look)
            if reachable != self.reachable:
                log.warning("Kafka %s", "answers again" if reachable else "does not answer")
            self.reachable = reachable
            await asyncio.sleep(1)

    def _look(self) -> bool:
        try:
            # One topic's metadata: it must come from a broker, never from a cache.
            metadata = self._admin.list_topics(self._topic, timeout=3)
        except confluent_kafka.KafkaException:
            return False
        self.partitions = len(metadata.topics[self._topic].partitions) or self.partitions
        return bool(metadata.brokers)
