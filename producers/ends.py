"""Where partitions end, asked again and again by a process that outlives its brokers."""

from collections.abc import Iterable
from concurrent.futures import wait
from typing import Final

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from schemas.settings import Settings

At = tuple[str, int]
"""A topic and a partition."""
_SECONDS: Final = 10.0


class Ends:
    """Asked with a client of its own. Any thread may use it.

    librdkafka keeps the leader's epoch that it heard first: once another broker leads, or the same one was started
    again, a client fails for ever (FENCED_LEADER_EPOCH). One that failed is followed by a new one.
    """

    def __init__(self, settings: Settings) -> None:
        self._config = {**settings.kafka, "log_level": 0}
        self._admin: AdminClient | None = None

    def of(self, partitions: Iterable[At], seconds: float = _SECONDS) -> dict[At, int]:
        """The offset after the last record of each, committed or not. Raises KafkaException."""
        wanted = list(partitions)
        try:
            return self._ask(self._admin, wanted, seconds) if self._admin is not None else self._anew(wanted, seconds)
        except KafkaException:
            return self._anew(wanted, seconds)

    def _anew(self, wanted: list[At], seconds: float) -> dict[At, int]:
        self._admin = admin = AdminClient(self._config)
        return self._ask(admin, wanted, seconds)

    def _ask(self, admin: AdminClient, wanted: list[At], seconds: float) -> dict[At, int]:
        asked = {TopicPartition(*at): OffsetSpec.latest() for at in wanted}
        said = admin.list_offsets(asked, request_timeout=seconds) if asked else {}
        if wait(said.values(), timeout=seconds).not_done:  # all of them: a client must outlive what it was asked
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        return {(at.topic, at.partition): future.result().offset for at, future in said.items()}
