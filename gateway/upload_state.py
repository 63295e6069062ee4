"""What the ledger knows of an upload: its state, which chunks have been applied, and the rows that were refused."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import msgspec
from msgspec import Meta, Struct

from gateway.database import Database, Db
from gateway.parse import FieldError
from gateway.problems import Problem
from gateway.upload_token import Token
from schemas.errors import Unavailable

_MISSING_LISTED: Final = 1_000
_PAGE: Final = 1_000

_UPLOAD: Final = """
SELECT entity, name, (extract(epoch FROM opened_at) * 1000000)::bigint,
       (extract(epoch FROM expires_at) * 1000000)::bigint, chunks, completed_at IS NOT NULL, cancelled_at IS NOT NULL
FROM uploads WHERE tenant_id = %s AND upload_id = %s
"""
# A chunk is whole when its messages, however they are split, carry all its lines.
_CHUNKS: Final = """
SELECT chunk, coalesce(range_agg(int4range(first_line, last_line + 1)) FILTER (WHERE first_line IS NOT NULL)
                       @> int4range(1, max(total_lines) + 1), false) AS whole,
       sum(applied), sum(superseded), sum(duplicate), sum(conflict), sum(rejected),
       extract(epoch FROM min(applied_at)), extract(epoch FROM max(applied_at))
FROM ledger WHERE tenant_id = %s AND upload_id = %s AND chunk > 0 AND type <> 'tillstream.upload-completed.v1'
              AND correction IS NULL
GROUP BY chunk
"""
_HIGHEST: Final = """
SELECT coalesce(max(chunk), 0) FROM ledger
WHERE tenant_id = %s AND upload_id = %s AND outcome = 'applied' AND type <> 'tillstream.upload-completed.v1'
"""
_REJECTED: Final = """
SELECT count(*) FROM ledger JOIN row_errors USING (tenant_id, topic, partition, log_offset)
WHERE tenant_id = %s AND upload_id = %s AND chunk > 0 AND stage = 'gateway'
"""
_CORRECTED: Final = """
SELECT count(*), coalesce(sum(applied), 0), coalesce(sum(superseded), 0) FROM ledger
WHERE tenant_id = %s AND upload_id = %s AND correction IS NOT NULL AND outcome = 'applied' AND rejected = 0
"""
# A row that was corrected has gone from here; one whose correction was refused, too, says why that was.
_ERRORS: Final = """
SELECT chunk, line, row_index, log_offset, row_errors.code, pointer, row_errors.detail, errors, row, stage,
       coalesce(correction, 0)
FROM ledger JOIN row_errors USING (tenant_id, topic, partition, log_offset)
WHERE tenant_id = %s AND upload_id = %s AND chunk > 0 AND (chunk, line, log_offset, row_index) > (%s, %s, %s, %s)
      AND NOT EXISTS (
          SELECT FROM ledger c
          WHERE c.tenant_id = ledger.tenant_id AND c.upload_id = ledger.upload_id AND c.chunk = ledger.chunk
                AND c.first_line = row_errors.line AND c.correction > coalesce(ledger.correction, 0)
                AND c.outcome = 'applied'
      )
ORDER BY chunk, line, log_offset, row_index LIMIT %s
"""


DATE_TIME: Final = {"format": "date-time"}
State = Literal["open", "processing", "completed", "partially_completed", "cancelled", "expired"]


class Chunks(Struct):
    """Chunks of an upload."""

    declared: Annotated[int | None, Meta(description="How many there are, where that was said.")]
    applied: int
    missing: Annotated[list[int], Meta(description="Their numbers, the first 1,000.")]
    missing_count: int


class Rows(Struct):
    """Rows by what became of them."""

    applied: int
    superseded: int
    duplicate: int
    conflict: int
    rejected: Annotated[int, Meta(description="Without those that have been corrected since.")]
    corrected: Annotated[
        int, Meta(description="Were refused at first; they are counted as applied or superseded, too.")
    ]


class UploadState(Struct):
    """How far an upload is."""

    upload_id: str
    entity: str
    name: str | None
    state: State
    opened_at: Annotated[str, Meta(extra_json_schema=DATE_TIME)]
    expires_at: Annotated[str, Meta(extra_json_schema=DATE_TIME)]
    chunks: Chunks
    rows: Rows
    eta_s: Annotated[float | None, Meta(description="Seconds until the last chunk is applied, where that can be told.")]


class RefusedRow(Struct):
    """A row that was refused, and why."""

    chunk: int
    line: int
    code: str
    pointer: str
    detail: str
    errors: Annotated[list[FieldError], Meta(description="All that is wrong with it; the first stands above, too.")]
    row: Annotated[str | None, Meta(description="As JSON, or what came in its place.")]
    stage: Annotated[Literal["gateway", "sink"], Meta(description="Where it was refused.")]
    correction: Annotated[int, Meta(description="0: as it came first; else the how-manieth correction was refused so.")]


class Known(Struct, frozen=True):
    """The row of an upload. Times in microseconds since 1970."""

    entity: str
    name: str | None
    opened_us: int
    expires_us: int
    chunks: int | None
    completed: bool
    cancelled: bool

    def must_take(self, chunk: int) -> None:
        """Raises Problem 409 when a chunk with this number would be rejected."""
        if self.cancelled:
            raise Problem(409, "upload_cancelled", "the upload was cancelled; open another for what is still to come")
        if self.completed and self.chunks is not None and chunk > self.chunks:
            raise Problem(409, "chunk_out_of_range", f"the upload was completed with {self.chunks} chunks")

    def must_complete(self, chunks: int, highest: int) -> None:
        """Raises Problem 409 when the upload, of which chunk `highest` has come, has another number of chunks."""
        if self.cancelled:
            raise Problem(409, "upload_cancelled", "the upload was cancelled")
        if self.completed and self.chunks != chunks:
            raise Problem(409, "upload_completed", f"the upload was completed already, with {self.chunks} chunks")
        if chunks < highest:
            raise Problem(409, "too_few_chunks", f"chunk {highest} has come, so that there are more than {chunks}")


async def must_complete(database: Database, tenant_id: str, upload_id: UUID, chunks: int) -> None:
    """Raises Problem 409 by what the ledger knows; the streams tell what is under way still."""
    try:
        async with database.transaction(tenant_id) as db:
            if known := await look_up(db, tenant_id, upload_id):
                found = await (await db.execute(_HIGHEST, [tenant_id, upload_id])).fetchone()
                known.must_complete(chunks, found[0] if found else 0)
    except Unavailable:
        return


async def look_up(db: Db, tenant_id: str, upload_id: UUID) -> Known | None:
    """The upload's row; None before it is there."""
    row = await (await db.execute(_UPLOAD, [tenant_id, upload_id])).fetchone()
    return Known(*row) if row else None


async def read(
    database: Database, tenant_id: str, token: Token, completed_with: int | None, cancelled: bool
) -> UploadState:
    """The state document. What was just said counts already; while PostgreSQL is away it is all that is known."""
    row, chunks, refused, corrected = None, [], 0, (0, 0, 0)
    try:
        async with database.transaction(tenant_id) as db:
            row = await look_up(db, tenant_id, token.upload_id)
            chunks = await (await db.execute(_CHUNKS, [tenant_id, token.upload_id])).fetchall()
            counted = await (await db.execute(_REJECTED, [tenant_id, token.upload_id])).fetchone()
            refused = counted[0] if counted else 0
            corrected = await (await db.execute(_CORRECTED, [tenant_id, token.upload_id])).fetchone() or corrected
    except Unavailable:
        if completed_with is None and not cancelled:
            raise
    whole = {chunk[0] for chunk in chunks if chunk[1]}
    total = completed_with or (row.chunks if row else None)
    missing = _missing(whole, total)
    applied, superseded, duplicate, conflict, rejected = (sum(chunk[n] for chunk in chunks) for n in range(2, 7))
    rows = Rows(
        applied + corrected[1],
        superseded + corrected[2],
        duplicate,
        conflict,
        rejected + refused - corrected[0],
        corrected[0],
    )
    completed = completed_with is not None or bool(row and row.completed)
    return UploadState(
        upload_id=str(token.upload_id),
        entity=token.entity,
        name=row.name if row else None,
        state=_state(token, completed, cancelled or bool(row and row.cancelled), missing, rows),
        opened_at=rfc3339(token.opened_us),
        expires_at=rfc3339(token.expires_us),
        chunks=Chunks(total, len(whole), missing[:_MISSING_LISTED], len(missing)),
        rows=rows,
        eta_s=_eta(chunks, len(whole), total),
    )


def _missing(whole: set[int], total: int | None) -> list[int]:
    """Chunks that are not there yet; where nobody has said how many there are, the gaps before the last one."""
    last = total if total is not None else max(whole, default=0)
    return [n for n in range(1, last + 1) if n not in whole]


def _state(token: Token, completed: bool, cancelled: bool, missing: list[int], rows: Rows) -> State:
    if completed and not missing:  # a cancel that came too late undid nothing
        return "partially_completed" if rows.rejected or rows.conflict else "completed"
    if cancelled:
        return "cancelled"
    if token.expired:
        return "expired"
    return "processing" if completed else "open"


def _eta(chunks: list[Any], done: int, total: int | None) -> float | None:
    """Seconds until the last chunk is applied, at the pace of those that were; None where nothing tells."""
    if total is None or done < 2:
        return None
    pace = (float(max(chunk[8] for chunk in chunks)) - float(min(chunk[7] for chunk in chunks))) / (done - 1)
    return round(max(0, total - done) * pace, 1)


async def errors(database: Database, tenant_id: str, upload_id: UUID) -> AsyncIterator[bytes]:
    """Pages of NDJSON; each is a transaction of its own, so that a slow reader holds nothing. Raises Unavailable."""
    after = (0, 0, 0, 0)
    while True:
        async with database.transaction(tenant_id) as db:
            page = await (await db.execute(_ERRORS, [tenant_id, upload_id, *after, _PAGE])).fetchall()
        if page:
            yield b"".join(map(_error_line, page))
        if len(page) < _PAGE:
            return
        chunk, line, row_index, log_offset = page[-1][:4]
        after = (chunk, line, log_offset, row_index)


def _error_line(found: Any) -> bytes:
    chunk, line, _, _, code, pointer, detail, all_errors, row, stage, correction = found
    listed = all_errors or [{"pointer": pointer, "code": code, "detail": detail}]
    return msgspec.json.encode(RefusedRow(chunk, line, code, pointer, detail, listed, row, stage, correction)) + b"\n"


def rfc3339(us: int) -> str:
    """Microseconds since 1970 as text."""
    return datetime.fromtimestamp(us / 1_000_000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
