"""What makes a message new, a redelivery, a duplicate or a conflict: pure functions over one partition's table.

An entry is (tenant, event id) -> source offset, append time, content hash; for the parts of a request it is (tenant,
request) and holds the lines that have come, so that a resend which is split elsewhere is known line by line. The table
also holds, under keys no event can have, the state of uploads, the fence (the last source offset whose outputs were
flushed, and the UUID of the topic it was counted in), the number of that topic's partitions and the crash note.
"""

import logging
import struct
import uuid
from collections import Counter
from collections.abc import Mapping, MutableMapping
from enum import StrEnum
from typing import Final, NamedTuple

from producers.breaker import LEAST
from schemas.codec import Record
from schemas.envelope import (
    BATCH_TYPES,
    NAMESPACE,
    ROWS_REJECTED,
    UPLOAD_CANCELLED,
    UPLOAD_COMPLETED,
    UPLOAD_OPENED,
    Envelope,
    Request,
)
from schemas.errors import Undecodable
from schemas.ids import uuid5

log = logging.getLogger(__name__)

FENCE: Final = b"\x00fence"
CRASH: Final = b"\x00crash"
GIVEN_UP: Final = b"\x00given-up"
PARTITIONS: Final = b"\x00partitions"
KEPT_MS: Final = 7 * 86_400_000
"""How long an id is remembered; the changelog topic keeps its records as long."""
CRASHES: Final = 3
"""Crashes at one offset after which its message is dead-lettered."""

_MAX_GAPS: Final = 1_000
_ENTRY: Final = struct.Struct(">qq16s")
_LINES: Final = struct.Struct(">II")
_UPLOAD: Final = struct.Struct(">qq?II")
_NOTE: Final = struct.Struct(">qi")
_OFFSET_BYTES: Final = 8
_COUNT_BYTES: Final = 4
_LOST: Final = struct.Struct(">q8s")
_MOST_LOST: Final = 10
"""Messages of other tenants than the worst that may be given up among 1,000 offsets."""
_REMEMBERED: Final = 64

Seen = MutableMapping[bytes, bytes]
Lines = list[tuple[int, int]]
"""Sorted, disjoint ranges of lines, both ends included."""


class Decision(StrEnum):
    NEW = "new"
    REDELIVERED = "redelivered"
    PARTLY_NEW = "partly_new"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"


class Entry(NamedTuple):
    """What is remembered of an event; the hash is the first 16 bytes of its SHA-256."""

    offset: int
    time_ms: int
    content_hash: bytes


class Fence(NamedTuple):
    """The last source offset that was flushed, in the topic with this UUID."""

    offset: int
    topic_id: str


class _Upload(NamedTuple):
    """What is remembered of an upload: how many chunks it was completed with (0 before), the highest that came."""

    offset: int
    time_ms: int
    cancelled: bool
    chunks: int
    highest: int


def key_of(tenant_key: bytes, event_id: str) -> bytes:
    """Table key of an event: the tenant, then 16 bytes of its id (foreign ids are hashed into a UUID)."""
    try:
        event = uuid.UUID(event_id).bytes
    except ValueError:
        event = uuid5(NAMESPACE.bytes, event_id.encode())
    return tenant_key + b"\x00" + event


def known_by_lines(envelope: Envelope) -> bool:
    """Whether a message is a part of a request: else, and where its rows come once more, its own id tells."""
    return envelope.request is not None and envelope.redrive is None


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


def request_key(tenant_key: bytes, envelope: Envelope) -> bytes:
    """Table key of a request; the rows that a gateway refused have lines of their own."""
    assert envelope.request is not None
    kind = b"" if envelope.type in BATCH_TYPES else envelope.type.encode()
    return tenant_key + b"\x00" + envelope.request.id.bytes + kind


def lines_known(seen: Seen, key: bytes) -> Lines:
    """The lines of a request that have come."""
    known = seen.get(key)
    return list(_LINES.iter_unpack(known[_ENTRY.size :])) if known else []


def decide_part(seen: Seen, key: bytes, envelope: Envelope) -> tuple[Decision, Entry]:
    """`decide` for a part of a request, by its lines. Raises Undecodable when they come in too many pieces."""
    request, mine = envelope.request, Entry(envelope.src.offset, envelope.src.time_ms, envelope.content_hash[:16])
    assert request is not None
    known, lines = seen.get(key), lines_known(seen, key)
    first = Entry(*_ENTRY.unpack_from(known)) if known else mine
    if known and first.offset == mine.offset:
        return Decision.REDELIVERED, first
    other = _of_other_kind(seen, key)
    if other is not None and other.content_hash != mine.content_hash:
        return Decision.CONFLICT, other
    if first.content_hash != mine.content_hash:
        return Decision.CONFLICT, first
    if covers(lines, request):
        return Decision.DUPLICATE, first
    if len(lines) > _MAX_GAPS:
        raise Undecodable("too_many_parts", f"the lines of request {request.id} come in more than {_MAX_GAPS} pieces")
    overlap = any(begin <= request.last and request.first <= end for begin, end in lines)
    merged = b"".join(_LINES.pack(*lines) for lines in _merged([*lines, (request.first, request.last)]))
    seen[key] = _ENTRY.pack(*first) + merged
    return (Decision.PARTLY_NEW if overlap else Decision.NEW), first


def _of_other_kind(seen: Seen, key: bytes) -> Entry | None:
    """What came first of the refused rows of a request whose rows these are, or the reverse: both are of one body."""
    refused = ROWS_REJECTED.encode()
    other = key.removesuffix(refused) if key.endswith(refused) else key + refused
    entry = seen.get(other)
    return Entry(*_ENTRY.unpack_from(entry)) if entry else None


def covers(lines: Lines, request: Request) -> bool:
    """Whether all lines of a part are among these."""
    return any(begin <= request.first and request.last <= end for begin, end in lines)


def trim(batch: Record, name: str, known: Lines) -> int:
    """Take the rows out of a batch whose lines have come; return how many. Without known lines nothing is taken."""
    if not known:
        return 0
    rows = batch[name]
    batch[name] = [row for row in rows if not any(begin <= row["line"] <= end for begin, end in known)]
    return len(rows) - len(batch[name])


def _merged(lines: Lines) -> Lines:
    merged: Lines = []
    for begin, end in sorted(lines):
        if merged and begin <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((begin, end))
    return merged


def refused_by_upload(seen: Seen, tenant_key: bytes, envelope: Envelope) -> str | None:
    """The code for a message that its upload no longer takes: log order rules what came before a cancel."""
    request, state = envelope.request, _upload(seen, tenant_key, envelope)
    if request is None or request.upload is None or envelope.type in (UPLOAD_OPENED, UPLOAD_CANCELLED):
        return None
    if state is None:  # its opening was a conflict, since a token is given only after it
        return "upload_not_opened"
    if state.cancelled:
        return "upload_cancelled"
    if envelope.type == UPLOAD_COMPLETED:
        if state.chunks and request.chunk != state.chunks:
            return "upload_completed"
        return "too_few_chunks" if request.chunk < state.highest else None
    return "chunk_out_of_range" if state.chunks and request.chunk > state.chunks else None


def cancelled(seen: Seen, tenant_key: bytes, envelope: Envelope) -> bool:
    """Whether the upload of a corrected row was cancelled before, as long as that is remembered."""
    state = _upload(seen, tenant_key, envelope)
    return state is not None and state.cancelled


def follow_upload(seen: Seen, tenant_key: bytes, envelope: Envelope) -> None:
    """Remember of an upload that it was opened, completed with so many chunks, or cancelled, and its highest chunk."""
    request = envelope.request
    if request is None or request.upload is None or envelope.redrive is not None:
        return
    known = _upload(seen, tenant_key, envelope)
    state = known or _Upload(envelope.src.offset, envelope.src.time_ms, cancelled=False, chunks=0, highest=0)
    if envelope.type == UPLOAD_COMPLETED:
        state = state._replace(chunks=request.chunk)
    elif envelope.type == UPLOAD_CANCELLED:
        state = state._replace(cancelled=True)
    elif envelope.type != UPLOAD_OPENED:
        state = state._replace(highest=max(state.highest, request.chunk))
    if state != known:
        seen[_upload_key(tenant_key, envelope)] = _UPLOAD.pack(*state)


def _upload(seen: Seen, tenant_key: bytes, envelope: Envelope) -> _Upload | None:
    if envelope.request is None or envelope.request.upload is None:
        return None
    state = seen.get(_upload_key(tenant_key, envelope))  # without the highest chunk where the version before wrote it
    return _Upload(*_UPLOAD.unpack(state.ljust(_UPLOAD.size, b"\0"))) if state else None


def _upload_key(tenant_key: bytes, envelope: Envelope) -> bytes:
    assert envelope.request is not None
    assert envelope.request.upload is not None
    return tenant_key + b"\x00" + envelope.request.upload.bytes + b"upload"


def fenced(seen: Seen, offset: int) -> bool:
    """Whether this source offset was flushed before: its message changes nothing any more."""
    fence = seen.get(FENCE)
    return fence is not None and offset <= int.from_bytes(fence[:_OFFSET_BYTES], "big")


def fence_of(seen: Mapping[bytes, bytes]) -> Fence | None:
    """The fence, None before the first flush; the UUID is "" where the version before wrote it."""
    fence = seen.get(FENCE)
    if fence is None:
        return None
    return Fence(int.from_bytes(fence[:_OFFSET_BYTES], "big"), fence[_OFFSET_BYTES:].decode())


def advance_fence(seen: Seen, offset: int, topic_id: str, partitions: int) -> None:
    """Remember that all up to `offset` of the topic with this UUID, and so many partitions, is in this flush."""
    seen[FENCE] = offset.to_bytes(_OFFSET_BYTES, "big") + topic_id.encode()
    seen[PARTITIONS] = partitions.to_bytes(_COUNT_BYTES, "big")  # no part of the fence, which older versions read


def partitions_of(seen: Mapping[bytes, bytes]) -> int | None:
    """How many partitions the source had at the last flush; None before the first, and of the version before."""
    count = seen.get(PARTITIONS)
    return None if count is None else int.from_bytes(count, "big")


def crashes(seen: Seen, offset: int) -> int:
    """How often the message at `offset` has ended the process."""
    note = seen.get(CRASH)
    at, count = _NOTE.unpack(note) if note else (-1, 0)
    return count if at == offset else 0


def refuse_after_crashes(seen: Seen, offset: int, tenant_key: bytes) -> None:
    """Raise Undecodable for the message at `offset` when it has ended the process too often.

    But not when too many of several tenants' have, the worst tenant left out: then it is not they, and the message is
    tried again until the program is put right. What was given up stands in the table, since memory ends with a crash.
    """
    if crashes(seen, offset) < CRASHES:
        return
    whose = uuid5(NAMESPACE.bytes, tenant_key)[:8]
    lost = [one for one in _LOST.iter_unpack(seen.get(GIVEN_UP, b"")) if one[0] > offset - LEAST]
    counted = Counter([*(tenant for _, tenant in lost), whose])
    if counted.total() - max(counted.values()) > _MOST_LOST:
        log.critical(
            "offset %d has ended the process %d times, as %d messages of %d tenants among the last %d offsets: no more"
            " are dead-lettered, it is tried again. Take back what was deployed, or put it right",
            *(offset, crashes(seen, offset), len(lost), len(counted), LEAST),
        )
        return
    seen[GIVEN_UP] = b"".join(_LOST.pack(*one) for one in [*lost, (offset, whose)][-_REMEMBERED:])
    raise Undecodable("processing_error", f"ended the process {CRASHES} times")


def crash_note(seen: Seen, offset: int) -> bytes:
    """The note that counts one more crash at `offset`."""
    return _NOTE.pack(offset, crashes(seen, offset) + 1)


def expired(key: bytes, value: bytes, now_ms: int) -> bool:
    """Whether an entry may be forgotten; fence, number of partitions and crash note never are."""
    return key not in (FENCE, PARTITIONS, CRASH) and int.from_bytes(value[8:16], "big") < now_ms - KEPT_MS
