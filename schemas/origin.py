"""Where a message comes from: its place in a log, the request that it is a part of, the message that it repeats."""

import re
import uuid
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from schemas.errors import Undecodable

Headers = list[tuple[str, bytes]]

NAMESPACE: Final = uuid.UUID("6f9a2d1e-5a0b-5c57-9d0c-7c1f2b6f4e11")
YEAR_2200_MS: Final = 7_258_118_400_000
_LINES: Final = re.compile(rb"([0-9]{1,9})-([0-9]{1,9})/([0-9]{1,9})")
_INDEXES: Final = re.compile(rb"[0-9]{1,6}(?:,[0-9]{1,6})*")


@dataclass(frozen=True, slots=True)
class Position:
    """Where a message lies: topic, partition, offset, and the broker's append time in Unix milliseconds."""

    topic: str
    partition: int
    offset: int
    time_ms: int

    def header(self) -> bytes:
        """The value of a `ts-src` header, and of others that name a place."""
        return f"{self.topic}/{self.partition}/{self.offset}/{self.time_ms}".encode()

    @classmethod
    def parse(cls, header: bytes) -> "Position":
        """Read what `header` made; raises Undecodable."""
        try:
            topic, partition, offset, time_ms = header.decode().split("/")
            return cls(topic, int(partition), int(offset), int(time_ms))
        except ValueError as exc:
            raise Undecodable("bad_header", f"not topic/partition/offset/time: {header[:60]!r}") from exc

    def event_id(self) -> str:
        """The id of a message that came without one: the same at every redelivery, another at every resend."""
        return str(uuid.uuid5(NAMESPACE, f"{self.topic}/{self.partition}/{self.offset}"))


@dataclass(frozen=True, slots=True)
class Request:
    """The request that a message is a part of, by which a resend is known however it is split.

    `id` is that of a POST under its Idempotency-Key, or of a chunk of an upload; the message carries its lines `first`
    to `last` of `total`, counted from 1. `chunk` of an upload-completed message is how many chunks there are.
    """

    id: uuid.UUID
    first: int
    last: int
    total: int
    upload: uuid.UUID | None = None
    chunk: int = 0

    def headers(self) -> Headers:
        """The `ts-` headers that say it."""
        said = [
            ("ts-request", str(self.id).encode()),
            ("ts-lines", b"%d-%d/%d" % (self.first, self.last, self.total)),
        ]
        if self.upload is not None:
            said += [("ts-upload", str(self.upload).encode()), ("ts-chunk", b"%d" % self.chunk)]
        return said


@dataclass(frozen=True, slots=True)
class Redrive:
    """That rows come once more (`schemas.redrive`): `of` is where their message lay when it came first.

    `rows` are the indexes that the rows had there, ascending; empty where all of them come again.
    """

    of: Position
    rows: tuple[int, ...] = ()

    def headers(self) -> Headers:
        """The `ts-` headers that say it."""
        said = [("ts-redrive-of", self.of.header())]
        return [*said, ("ts-redrive-rows", b",".join(b"%d" % row for row in self.rows))] if self.rows else said


def request_in(found: dict[str, bytes]) -> Request:
    """Read what `Request.headers` made; raises Undecodable."""
    lines = _LINES.fullmatch(found.get("ts-lines", b""))
    chunk = found.get("ts-chunk", b"0")
    try:
        request = uuid.UUID(found["ts-request"].decode())
        upload = uuid.UUID(found["ts-upload"].decode()) if "ts-upload" in found else None
    except ValueError as exc:
        raise Undecodable("bad_header", "ts-request and ts-upload are UUIDs") from exc
    if lines is None or not 1 <= int(lines[1]) <= int(lines[2]) <= int(lines[3]):
        raise Undecodable("bad_header", f"ts-lines is not first-last/total: {found.get('ts-lines', b'')[:40]!r}")
    if not chunk.isdigit() or len(chunk) > 7:
        raise Undecodable("bad_header", f"ts-chunk is not a number: {chunk[:20]!r}")
    return Request(request, int(lines[1]), int(lines[2]), int(lines[3]), upload, int(chunk))


def redrive_in(found: dict[str, bytes]) -> Redrive:
    """Read what `Redrive.headers` made; raises Undecodable."""
    indexes = found.get("ts-redrive-rows", b"0")
    if not _INDEXES.fullmatch(indexes):
        raise Undecodable("bad_header", f"ts-redrive-rows is not a list of indexes: {indexes[:40]!r}")
    rows = tuple(map(int, indexes.split(b","))) if "ts-redrive-rows" in found else ()
    if any(one >= other for one, other in pairwise(rows)):
        raise Undecodable("bad_header", "ts-redrive-rows does not ascend")
    of = Position.parse(found["ts-redrive-of"])
    if not (0 <= of.offset < 2**63 and 0 <= of.time_ms < YEAR_2200_MS):
        raise Undecodable("bad_header", "ts-redrive-of is no position in a log")
    return Redrive(of, rows)
