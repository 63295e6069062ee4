"""Source topics, known again by Kafka's UUID: an offset means something in the log it was counted in, in no other.

The fence of a partition (`streams.dedup`) keeps the UUID beside the offset. A topic that was deleted and made again
begins at 0, and a fence that was believed would skip its first messages without a word.
"""

from collections.abc import Mapping
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from producers.admin import topic_ids
from producers.ends import Ends
from schemas import topics
from schemas.errors import Misconfigured
from schemas.settings import Settings
from streams import dedup

_SOURCES: Final = (topics.INGESTION, topics.STOCK, topics.PRICES)
_KAFKA_S: Final = 10
_WHAT_TO_DO: Final = (
    "Point at the old cluster or bring the old topic back; or start over: end every process, delete all topics of this"
    " installation, run `tillstream topics ensure`, and use an empty database"
)


class Sources:
    """The source topics as this worker found them. Any thread may use it."""

    def __init__(self, settings: Settings) -> None:
        self._admin = AdminClient({**settings.kafka, "log_level": 0})
        self._settings, self._ends = settings, Ends(settings)
        self._names = [settings.named(name) for name in _SOURCES]
        self.ids: dict[str, str] = {}
        """UUID of each, by its real name."""
        self.next: dict[tuple[str, int], int] = {}
        """The offset after the fence of each partition that has one, as it was when partitions were assigned."""

    def look(self) -> None:
        """Learn the UUIDs. Raises Misconfigured where a topic is gone or has another one than at the first look.

        Raises KafkaException where Kafka does not answer.
        """
        try:
            found = topic_ids(self._admin, self._names)
        except KafkaException as exc:
            if exc.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise Misconfigured(f"a source topic was deleted under this worker. {_WHAT_TO_DO}") from exc
            raise
        for name, topic_id in found.items():
            _same(name, topic_id, self.ids.setdefault(name, topic_id))

    def check(self, topic: str, fences: Mapping[int, dedup.Fence]) -> None:
        """Hold the fences of a topic's partitions against the topic.

        A fence of the version before has no UUID and passes by its offset. Raises as `look` does.
        """
        self.look()
        self.next |= {(topic, partition): fence.offset + 1 for partition, fence in fences.items()}
        ends = self._ends.of((topic, partition) for partition in fences)
        for partition, fence in fences.items():
            where, end = f"{topic}[{partition}]", ends[topic, partition]
            if fence.topic_id:
                _same(where, self.ids[topic], fence.topic_id)
            if end <= fence.offset:
                raise Misconfigured(
                    f"{where} ends at {end}, but the tables hold its messages up to {fence.offset}: the topic lost"
                    f" records, or this is another cluster. {_WHAT_TO_DO}"
                )

    def left_out(self, topic: str, partition: int, first: int, end: int) -> int | None:
        """The offset of the first message at `first` or later, and before `end`; None where there is none.

        Markers of transactions, and what was aborted or compacted, take offsets too. Raises KafkaException.
        """
        consumer = Consumer(
            {
                **self._settings.kafka,
                "group.id": "unused",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
            }
        )
        try:
            consumer.assign([TopicPartition(topic, partition, first)])
            message = consumer.poll(_KAFKA_S)  # there is one at `end`
            if message is None or message.error():
                raise KafkaException(message.error() if message else KafkaError(KafkaError._TIMED_OUT))
            offset = int(message.offset())
            return offset if offset < end else None
        finally:
            consumer.close()


def _same(where: str, topic_id: str, known: str) -> None:
    if topic_id != known:
        raise Misconfigured(
            f"{where} is another topic than the one the tables were made from (id {topic_id}, known {known}): it was"
            f" deleted and made again. {_WHAT_TO_DO}"
        )
