"""A Confluent-compatible schema registry: ids of our schemas for writing, and what an id means for reading.

The subject of a schema is its record's full name, such as `tillstream.OrderBatch` (Confluent's RecordNameStrategy): a
topic carries several types, and the bytes of a type lie on several topics.

Ids never change their meaning, so that each is asked for once. While the registry is away the known ones go on.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

from schemas import codec
from schemas.errors import Misconfigured, Unavailable
from schemas.settings import Settings

T = TypeVar("T")
log = logging.getLogger(__name__)

_TIMEOUT_S: Final = 5
_LONGEST_WAIT_S: Final = 10.0
_NO_SUCH_SCHEMA: Final = 40403
"""Confluent's error code; any other 404 is a wrong URL's."""
_UNKNOWN_FOR_S: Final = 60.0
_MAX_UNKNOWN: Final = 10_000
_MAX_ID: Final = 2**31 - 1


class Registry:
    """One registry, as a process knows it. Any thread may use it."""

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        # 24 MB that nobody pays who has no registry.
        from confluent_kafka.schema_registry import SchemaRegistryClient

        self._client = SchemaRegistryClient({"url": url, "timeout": _TIMEOUT_S, "max.retries": 0})
        self._clock = clock
        self._ids: dict[bytes, int] = {}
        self._fingerprints: dict[int, bytes] = {}
        self._unknown: dict[int, float] = {}

    async def register(self) -> None:
        """Learn the ids of our newest schemas, registering those that are new; wait while the registry is away.

        Raises Misconfigured when it refuses.
        """
        for pause in backoff():
            try:
                self._ids = await asyncio.to_thread(lambda: dict(map(self._registered, codec.types())))
                return
            except Unavailable as exc:
                log.warning("%s; nothing is sent until it answers, next try in %.1f s", exc, pause)
                await asyncio.sleep(pause)

    def framed(self, value: bytes) -> bytes:
        """A value that our codec framed, in Confluent's wire format. Raises Unavailable until `register` is through."""
        if not self._ids:
            raise Unavailable("the schema registry has not told the ids of schemas yet")
        schema_id = self._ids.get(value[2:10]) if value[:2] == codec.SINGLE_OBJECT else None
        return value if schema_id is None else codec.CONFLUENT + schema_id.to_bytes(4, "big") + value[10:]

    def fingerprint(self, schema_id: int) -> bytes | None:
        """The fingerprint of ours that the schema with this id has, for `codec.read_ids_with`.

        None where the registry knows no such id, b"" where the schema is not one of ours. Raises Unavailable.
        """
        known = self._fingerprints.get(schema_id)
        if known is not None:
            return known
        if schema_id > _MAX_ID or self._unknown.get(schema_id, 0.0) > self._clock():
            return None
        schema = _asked(lambda: self._client.get_schema(schema_id))
        if schema is None:
            if len(self._unknown) >= _MAX_UNKNOWN:  # somebody makes ids up
                self._unknown.clear()
            self._unknown[schema_id] = self._clock() + _UNKNOWN_FOR_S
            return None
        ours = schema.schema_type == "AVRO" and not schema.references
        self._fingerprints[schema_id] = codec.fingerprint_of(schema.schema_str) if ours else b""
        return self._fingerprints[schema_id]

    def learn(self, value: bytes | None) -> None:
        """Ask for the id in a value, so that reading it need not. Raises Unavailable."""
        if (schema_id := codec.schema_id(value)) is not None:
            self.fingerprint(schema_id)

    async def learned(self, value: bytes | None) -> None:
        """`learn`, without holding up the event loop."""
        schema_id = codec.schema_id(value)
        if schema_id is not None and schema_id not in self._fingerprints:
            await asyncio.to_thread(self.fingerprint, schema_id)

    def _registered(self, type_: str) -> tuple[bytes, int]:
        from confluent_kafka.schema_registry import Schema

        subject, fingerprint, text = codec.newest(type_)
        schema_id = _asked(lambda: self._client.register_schema(subject, Schema(text, "AVRO")))
        if schema_id is None:
            raise Misconfigured("SCHEMA_REGISTRY_URL: there is no registry at this path")
        return fingerprint, schema_id


def reading(settings: Settings) -> Registry | None:
    """The registry of the settings, from now on asked by this process's codec."""
    registry = Registry(settings.schema_registry_url) if settings.schema_registry_url else None
    codec.read_ids_with(registry.fingerprint if registry else None)
    return registry


def backoff() -> Iterator[float]:
    """Seconds to wait between tries, for ever."""
    pause = 0.1
    while True:
        yield pause
        pause = min(pause * 2, _LONGEST_WAIT_S)


def _asked(question: Callable[[], T]) -> T | None:
    """The answer; None for a schema that is not there. Raises Unavailable, or Misconfigured where asking is no use."""
    import httpx2
    from confluent_kafka.schema_registry import SchemaRegistryError

    try:
        return question()
    except httpx2.TransportError as exc:
        raise Unavailable(f"the schema registry does not answer: {type(exc).__name__} {exc}".rstrip()) from exc
    except SchemaRegistryError as exc:
        if exc.error_code == _NO_SUCH_SCHEMA:
            return None
        if exc.http_status_code in (401, 403, 409, 422):
            raise Misconfigured(f"the schema registry refuses: {exc}; see README, 'Produce directly'") from exc
        raise Unavailable(f"the schema registry cannot answer: {exc}") from exc
