"""Streams that flush outputs, then changelog, without a transaction: `python -m tests.faulty_flush`.

As plain Faust does. One of the workers is killed between the two. Only for tests of the checker.
"""

import confluent_kafka

from streams import steps
from streams.__main__ import main
from streams.steps import Step, Steps
from tests.worst_moment import kill_me

_FLUSH_S = 60


def plain_producer(self: Steps, partition: int) -> confluent_kafka.Producer:
    """One that fences nobody."""
    return confluent_kafka.Producer(self._config | {"linger.ms": 1})


def commit(self: Steps, producer: confluent_kafka.Producer, partition: int, flushed: list[Step]) -> None:
    """As `Steps._commit`, in two parts."""
    ends: dict[tuple[str, int], int] = {}

    def delivered(error: confluent_kafka.KafkaError | None, message: confluent_kafka.Message) -> None:
        assert error is None
        at = message.topic(), partition
        ends[at] = max(ends.get(at, 0), message.offset() + 1)

    for step in flushed:
        for topic, key, value, headers in step.records:
            producer.produce(self._named(topic), value, key, partition, headers=headers, on_delivery=delivered)
    producer.flush(_FLUSH_S)
    kill_me("killed")
    for table, changes in steps._merged(flushed).items():
        encode = self.encoders.get(table, steps._as_it_is)
        for key, value in changes.items():
            written = value if value is None else encode(key, value)
            producer.produce(self._named(table), written, key, partition, on_delivery=delivered)
    producer.flush(_FLUSH_S)
    self.ends |= ends


if __name__ == "__main__":
    Steps._new_producer = plain_producer
    Steps._commit = commit
    main()
