"""What a sink reads off Kafka's records before it looks into them."""

import logging
from collections.abc import Iterable
from typing import Final

import confluent_kafka

from producers import tenants
from producers.tenants import Tenant
from schemas.envelope import Position
from schemas.errors import Misconfigured, Rejected

log = logging.getLogger(__name__)

_MAX_BYTES: Final = 8_000_000
_KEPT: Final = 10_000
"""Characters kept of a text that anybody may have sent."""


class Room:
    """What still fits a batch, in rows and in bytes: a header may say less than a message holds."""

    def __init__(self, rows: int, records: list[confluent_kafka.Message]) -> None:
        self._rows, self._bytes = rows, _MAX_BYTES
        self.take(records)

    @property
    def left(self) -> bool:
        return self._rows > 0 and self._bytes > 0

    def take(self, records: list[confluent_kafka.Message]) -> None:
        self._rows -= sum(map(_declared_rows, records))
        self._bytes -= sum(len(record.value() or b"") for record in records)


def good(records: Iterable[confluent_kafka.Message]) -> list[confluent_kafka.Message]:
    """The records among what Kafka delivered, and that a partition ends for now.

    Raises Misconfigured where the log has lost what was asked for.
    """
    read = []
    for record in records:
        error = record.error()
        if error is None or error.code() == confluent_kafka.KafkaError._PARTITION_EOF:
            read.append(record)
        elif error.code() == confluent_kafka.KafkaError._AUTO_OFFSET_RESET:
            raise Misconfigured(
                f"{record.topic()}[{record.partition()}]: the stored offset is not in the log ({error.str()})."
                " To go on without what is gone: tillstream sinks --accept-gap"
            )
        elif error.fatal():
            raise confluent_kafka.KafkaException(error)
        else:
            log.warning("Kafka: %s", error.str())
    return read


def tenant_of(record: confluent_kafka.Message, at: Position) -> list[tuple[Tenant, int, int]]:
    """The tenant of a record, with offset and time in ms; nothing where it cannot be read, as a removed one's."""
    try:
        return [(tenants.checked(tenants.decode(record.value())), at.offset, at.time_ms)]
    except Rejected as exc:
        log.error("tenants@%d ignored: %s", at.offset, exc)
        return []


def type_of(record: confluent_kafka.Message) -> str:
    """The `ce_type` of a record, which streams wrote."""
    return str(dict(record.headers() or ())["ce_type"], "ascii")


def _declared_rows(record: confluent_kafka.Message) -> int:
    for name, raw in record.headers() or ():
        if name == "ts-rows" and raw is not None and raw.isdigit():
            return max(1, int(raw))
    return 1


def storable(text: str | None) -> str | None:
    """Text that PostgreSQL can hold, whatever a direct producer put into it."""
    return text and text[:_KEPT].replace("\x00", "�").encode(errors="replace").decode()
