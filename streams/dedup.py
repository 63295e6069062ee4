"""What makes a message new, a redelivery, a duplicate or a conflict: pure functions over one partition's table.

An entry is (tenant, event id) -> source offset, append time, content hash. The table also holds, under keys no
event can have, the fence (the last source offset whose outputs were flushed) and the crash note.
"""

import struct
import uuid
from collections.abc import MutableMapping
from enum import StrEnum
from typing import Final, NamedTuple

from schemas.envelope import NAMESPACE, Envelope

FENCE: Final = b"\x00fence"
CRASH: Final = b"\x00crash"
KEPT_MS: Final = 7 * 86_400_000
"""How long an id is remembered; the changelog topic keeps its records as long."""
CRASHES: Final = 3
"""Crashes at one offset after which its message is dead-lettered."""

_ENTRY: Final = struct.Struct(">qq16s")
_NOTE: Final = struct.Struct(">qi")

Seen = MutableMapping[bytes, bytes]


class Decision(StrEnum):
    NEW = "new"
    REDELIVERED = "redelivered"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"


class Entry(NamedTuple):
    """What is remembered of an event; the hash is the first 16 bytes of its SHA-256."""

    offset: int
    time_ms: int
    content_hash: bytes


def key_of(tenant_key: bytes, event_id: str) -> bytes:
    """Table key of an event: the tenant, then 16 bytes of its id (foreign ids are hashed into a UUID)."""
    try:
        event = uuid.UUID(event_id)
    except ValueError:
        event = uuid.uuid5(NAMESPACE, event_id)
    return tenant_key + b"\x00" + event.bytes


def decide(seen: Seen, key: bytes, envelope: Envelope) -> tuple[Decision, Entry]:
    """Tell what a message is, and remember a new one. The entry is that of the first message with its id."""
    mine = Entry(envelope.src.offset, envelope.src.time_ms, envelope.content_hash[:16])
    known = seen.get(key)
    if known is None:
        seen[key] = _ENTRY.pack(*mine)
        return Decision.NEW, mine
    first = Entry(*_ENTRY.unpack(known))
    if first.offset == mine.offset:
        return Decision.REDELIVERED, first
    return (Decision.DUPLICATE if first.content_hash == mine.content_hash else Decision.CONFLICT), first


def fenced(seen: Seen, offset: int) -> bool:
    """Whether this source offset was flushed before: its message changes nothing any more."""
    fence = seen.get(FENCE)
    return fence is not None and offset <= int.from_bytes(fence, "big")


def advance_fence(seen: Seen, offset: int) -> None:
    """Remember that all up to `offset` is in this flush."""
    seen[FENCE] = offset.to_bytes(8, "big")


def crashes(seen: Seen, offset: int) -> int:
    """How often the message at `offset` has ended the process."""
    note = seen.get(CRASH)
    at, count = _NOTE.unpack(note) if note else (-1, 0)
    return count if at == offset else 0


def crash_note(seen: Seen, offset: int) -> bytes:
    """The note that counts one more crash at `offset`."""
    return _NOTE.pack(offset, crashes(seen, offset) + 1)


def expired(value: bytes, now_ms: int) -> bool:
    """Whether an entry may be forgotten; fence and crash note never are."""
    return len(value) == _ENTRY.size and _ENTRY.unpack(value)[1] < now_ms - KEPT_MS
