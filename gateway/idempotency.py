"""Idempotency-Key (draft-ietf-httpapi-idempotency-key-header): the same request again gets the first answer again.

The ledger remembers, not the gateway: it is asked only for keys that the client chose, and while it cannot answer the
streams' own dedup still keeps a row from being applied twice.
"""

import secrets
from typing import Any, Final
from uuid import UUID

from starlette.requests import Request

from gateway.database import Database, Db
from gateway.parse import FieldError, RowError
from gateway.problems import Problem
from gateway.publishing import Answer, Body
from schemas import envelope
from schemas.envelope import BATCH_TYPES, ROWS_REJECTED
from schemas.errors import Unavailable


class OtherBody(Problem):
    """A key was used again for something else."""

    def __init__(self) -> None:
        super().__init__(422, "idempotency_key_reused", "this Idempotency-Key came with another body; use a new one")


_LEDGER: Final = """
SELECT event_id, type, outcome, rows - duplicate AS rows, body_hash, first_line, last_line, topic, partition, log_offset
FROM ledger
WHERE tenant_id = %s AND request_id = %s AND outcome IN ('applied', 'rejected') AND first_line IS NOT NULL
ORDER BY first_line, log_offset
"""
_FOLDED: Final = """
SELECT event_id, log_offset FROM ledger WHERE tenant_id = %s AND request_id = %s AND outcome = 'applied' LIMIT 1
"""
_REJECTED: Final = """
SELECT line, errors FROM row_errors
WHERE tenant_id = %s AND topic = %s AND partition = %s AND log_offset = %s AND stage = 'gateway'
ORDER BY line
"""
_KEY_BYTES: Final = 18
_DRAWN: Final = 256
_unused: list[str] = []
_MAX_ERRORS: Final = 1_000


def key_of(request: Request) -> str:
    """The caller's key, quoted (RFC 9651 string) or bare, or a new one. Raises Problem 400."""
    given = _given(request)
    if given is None:
        return new_key()
    if len(given) >= 2 and given[0] == given[-1] == '"':
        given = given[1:-1]
    if not 1 <= len(given) <= 200 or not given.isascii() or not given.isprintable() or '"' in given:
        raise Problem(
            400,
            "bad_idempotency_key",
            "Idempotency-Key takes 1 to 200 printable ASCII characters, without quotes inside",
        )
    return given


def new_key() -> str:
    """144 random bits. They are drawn for many keys at once: each draw releases the interpreter's lock."""
    if not _unused:
        random = secrets.token_urlsafe(_KEY_BYTES * _DRAWN)
        size = len(random) // _DRAWN
        _unused.extend(random[at : at + size] for at in range(0, len(random), size))
    return _unused.pop()


def was_given(request: Request) -> bool:
    """Whether the client chose the key; one that we make has never been seen."""
    return _given(request) is not None


def _given(request: Request) -> str | None:
    """Raises Problem 400 for two keys, of which a proxy may have added one: either could be the caller's."""
    given = [value for name, value in request.scope["headers"] if name == b"idempotency-key"]
    if len(given) > 1:
        raise Problem(400, "bad_idempotency_key", f"there are {len(given)} Idempotency-Key headers; send one")
    return str(given[0], "latin-1").strip() if given else None


async def first_answer(database: Database, tenant_id: str, origin: envelope.Request, body: Body) -> Answer | None:
    """`look_up` for a request; while PostgreSQL is away nothing is known: None."""
    try:
        async with database.transaction(tenant_id) as db:
            return await look_up(db, tenant_id, origin, body)
    except Unavailable:
        return None


async def came_before(database: Database, tenant_id: str, request: UUID) -> tuple[str, int] | None:
    """Event id and offset of a request that is one message, once that is in the ledger.

    None while PostgreSQL is away, too.
    """
    try:
        async with database.transaction(tenant_id) as db:
            found: tuple[str, int] | None = await (await db.execute(_FOLDED, [tenant_id, request])).fetchone()
            return found
    except Unavailable:
        return None


async def whole_body_came(database: Database, tenant_id: str, origin: envelope.Request, body_hash: str) -> bool:
    """Whether all lines of this request's body are in the ledger; no while PostgreSQL is away. Raises OtherBody."""
    try:
        async with database.transaction(tenant_id) as db:
            lines = await _lines(db, tenant_id, origin, body_hash)
    except Unavailable:
        return False
    return bool(lines) and _whole(lines, origin.total)


async def look_up(db: Db, tenant_id: str, origin: envelope.Request, body: Body) -> Answer | None:
    """What was answered to this request before, once all of it is in the ledger; None when it must be published.

    Raises OtherBody when another body came under its key.
    """
    lines = await _lines(db, tenant_id, origin, body.hash)
    if not lines or not _whole(lines, origin.total):
        return None
    answer = await _answer(db, tenant_id, lines)
    # Rows go out before the lines that were refused beside them, which may be on their way still, or never have left.
    return answer if not answer.accepted or answer.accepted + answer.rejected >= body.rows else None


async def must_be_same(db: Db, tenant_id: str, origin: envelope.Request, body_hash: str) -> None:
    """Raises OtherBody when another body came under this request's key."""
    await _lines(db, tenant_id, origin, body_hash)


async def _lines(db: Db, tenant_id: str, origin: envelope.Request, body_hash: str) -> list[Any]:
    """The messages of a request that are in the ledger, by the lines they carry. Raises OtherBody."""
    lines = await (await db.execute(_LEDGER, [tenant_id, origin.id])).fetchall()
    if any(line[4] != bytes.fromhex(body_hash)[:16] for line in lines):
        raise OtherBody
    return lines


def _whole(lines: list[Any], total: int) -> bool:
    """Whether these messages carry all lines of the body; a part without a good row left only its errors."""
    upto = 0
    for line in lines:
        if line[5] > upto + 1:
            return False
        upto = max(upto, line[6])
    return upto >= total


async def _answer(db: Db, tenant_id: str, lines: list[Any]) -> Answer:
    batches = [line for line in lines if line[1] in BATCH_TYPES]
    answer = Answer([line[0] for line in batches], sum(line[3] for line in batches), 0, [], 0)
    for line in lines:
        if line[1] != ROWS_REJECTED:
            continue
        answer.keep(line[0])
        for number, errors in await (await db.execute(_REJECTED, [tenant_id, *line[7:10]])).fetchall():
            answer.rejected += 1
            room = _MAX_ERRORS - len(answer.errors)
            answer.errors += [_numbered(number, error) for error in errors[:room]]
            answer.errors_omitted += max(0, len(errors) - room)
    return answer


def _numbered(line: int, error: FieldError) -> RowError:
    return {"line": line, "pointer": error["pointer"], "code": error["code"], "detail": error["detail"]}
