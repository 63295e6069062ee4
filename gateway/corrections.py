"""POST /uploads/{token}/corrections: refused rows of an upload, put right, in place of exactly those rows.

Each row becomes a message of its own, under an id that counts the corrections of that row, and keeps the version that
the row had: what came since is newer (DESIGN §4.8). The gateway asks the ledger which rows were refused; of two
corrections of one row that are both on their way the first in the log counts.
"""

import asyncio
import hashlib
import time
from collections.abc import Sequence
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response

from gateway import bodies, filters, parse, traces, upload_state
from gateway.measured import received
from gateway.problems import Problem, json
from gateway.publishing import MAX_ERRORS, Answer, refused, unavailable
from gateway.sql import statement
from gateway.tenants import authenticated
from gateway.upload_token import Token
from gateway.uploads import MAX_CHUNKS, token_of
from producers.tenants import Tenant
from schemas import codec, envelope, topics
from schemas.corrections import correction_id
from schemas.envelope import Headers, Position, Redrive
from schemas.errors import Rejected, Unavailable
from schemas.rows import ENTITIES

MAX_CORRECTIONS: Final = 10_000
"""Of one body: each is a message."""
_MAX_LINE: Final = 10_000_000
_TURN_S: Final = 0.005


class Correction(Struct):
    """A row in place of one that was refused: a line of …/errors, its `row` put right. Other fields are ignored."""

    chunk: Annotated[int, Meta(ge=1, le=MAX_CHUNKS)]
    line: Annotated[int, Meta(ge=1, le=_MAX_LINE, description="Of the chunk, from 1.")]
    row: Annotated[
        msgspec.Raw,
        Meta(
            description="The whole row: an object, or text that is one as JSON.",
            extra_json_schema={"type": ["object", "string"]},
        ),
    ]


class Corrected(Answer, kw_only=True):
    """What became of corrections. `line` of an error is that of this body."""

    repeated: Annotated[int, Meta(description="Are in force already, just so: nothing was sent.")]


class _Known(Struct, frozen=True):
    """A refused row, as gateway/sql/refused_rows.sql finds it, and its last correction, if it has one."""

    chunk: int
    line: int
    event_id: str
    topic: str
    partition: int
    offset: int
    index: int
    accepted_ms: int
    logged_ms: int
    corrections: int | None
    corrected_by: str | None
    corrected_hash: bytes | None
    failed_again: bool | None


class _Wrong(Exception):
    """A correction that cannot be taken, and all that is wrong with it."""

    def __init__(self, errors: Sequence[parse.FieldError]) -> None:
        super().__init__()
        self.errors = errors


async def correct_rows(request: Request) -> Response:
    """Correct rows of an upload that were refused.

    Each line is one of …/errors with its `row` put right, as an object or as text; other fields are ignored. 202 once
    Kafka has acknowledged; `errors` says which were not taken, such as those of rows that were not refused. A
    correction keeps its row's place in time, so that newer data stay. Sent again it counts once, without an
    Idempotency-Key; one that is refused later can be corrected again.
    """
    tenant = authenticated(request)
    token = token_of(request, tenant)
    filters.none(request.query_params)
    if not request.state.kafka.reachable:
        raise unavailable("Kafka is away")
    state = request.state
    raw = await bodies.read(request, tenant.tenant_id, state.settings, state.inflight)
    try:
        bodies.must_be_rows(request, raw)
        if raw.count(b"\n") > MAX_CORRECTIONS:
            raise Problem(413, "too_many_lines", f"a body may have {MAX_CORRECTIONS:,} lines; send it in parts")
        lines = list(parse.lines_of(raw, single=False))
        if not lines:
            raise Problem(
                400, "empty_body", "the body has no corrections; send lines of …/errors, their rows put right"
            )
        return json(202, await _Corrections(request, tenant, token).take(lines))
    finally:
        state.inflight.give_back(tenant.tenant_id, len(raw))


class _Corrections:
    """Takes the lines of one request."""

    def __init__(self, request: Request, tenant: Tenant, token: Token) -> None:
        self._request, self._state, self._tenant, self._token = request, request.state, tenant, token
        self._entity = ENTITIES[token.entity]
        self._traceparent = traces.traceparent(request.scope)
        self._answer = Corrected([], 0, 0, [], 0, repeated=0)
        self._sent: list[asyncio.Future[int]] = []

    async def take(self, lines: list[parse.Line]) -> Corrected:
        """Check and send all, and wait for their acknowledgement. Raises Problem, Unavailable without the ledger."""
        given: dict[tuple[int, int], tuple[int, Correction]] = {}
        for number, line in lines:
            try:
                correction = _read(line)
                place = correction.chunk, correction.line
                if place in given:
                    raise _wrong("already_corrected", f"{_named(*place)} is corrected in line {given[place][0]}, too")
                given[place] = number, correction
            except _Wrong as exc:
                self._refuse(number, exc.errors)
        known, failed = await self._known(list(given)), None
        turn = time.perf_counter()
        for place, (number, correction) in given.items():
            try:
                await self._correct(known.get(place), correction)
            except _Wrong as exc:
                self._refuse(number, exc.errors)
            except Problem as exc:  # Kafka's client takes no more; what it has must be waited for
                failed = exc
                break
            if time.perf_counter() - turn > _TURN_S:
                await asyncio.sleep(0)
                turn = time.perf_counter()
        await self._acknowledged()
        if failed is not None:
            raise failed
        received(self._request, self._entity.name, "accepted", self._answer.accepted)
        received(self._request, self._entity.name, "rejected", self._answer.rejected)
        self._answer.errors.sort(key=lambda error: error["line"])
        return self._answer

    async def _known(self, places: list[tuple[int, int]]) -> dict[tuple[int, int], _Known]:
        """What the ledger knows of these rows. Raises Problem 409 for an upload that was cancelled."""
        tenant_id, upload_id = self._tenant.tenant_id, self._token.upload_id
        wanted: dict[str, Any] = {
            "tenant_id": tenant_id, "upload_id": upload_id, "type": self._entity.type,
            "chunks": [chunk for chunk, _ in places], "lines": [line for _, line in places],
        }  # fmt: skip
        async with self._state.database.transaction(tenant_id) as db:
            upload = await upload_state.look_up(db, tenant_id, upload_id)
            if upload is not None and upload.cancelled:
                raise Problem(409, "upload_cancelled", "the upload was cancelled; send the rows as new ones")
            rows = await (await db.execute(statement("refused_rows"), wanted)).fetchall()
        return {(row[0], row[1]): _Known(*row) for row in rows}

    async def _correct(self, known: _Known | None, correction: Correction) -> None:
        """Send a correction, if it is one. Raises _Wrong, or Problem 503 where Kafka's client is full."""
        if known is None:
            where = _named(correction.chunk, correction.line)
            raise _wrong("row_not_refused", f"{where} is not among the rows of this upload that were refused (yet)")
        row = await self._checked(correction)
        row_hash = hashlib.sha256(row)
        if known.corrections is not None and not known.failed_again:
            if known.corrected_hash != row_hash.digest()[:16]:
                where = _named(known.chunk, known.line)
                detail = f"{where} was corrected otherwise, by event {known.corrected_by}; send the record as a new row"
                raise _wrong("already_corrected", detail)
            self._answer.repeated += 1
            return
        value = codec.frame(self._entity.type, self._tenant.tenant_id, [row])
        if len(value) > topics.MAX_MESSAGE_BYTES:
            raise _wrong("row_too_large", f"one row may have {topics.MAX_MESSAGE_BYTES} bytes")
        event_id = correction_id(known.event_id, known.line, (known.corrections or 0) + 1)
        self._send(value, self._headers(known, event_id, value, row_hash.hexdigest()))
        self._answer.event_ids.append(event_id)
        self._answer.accepted += 1

    async def _checked(self, correction: Correction) -> bytes:
        """The row as Avro. Raises _Wrong."""
        line = correction.line, bytes(correction.row)
        rows, errors = await parse.parse(
            self._entity, [line], self._tenant.currency, self._state.settings.max_line_bytes
        )
        if not rows:
            raise _Wrong([_fault(error["code"], error["detail"], "/row" + error["pointer"]) for error in errors])
        return rows[0][1]

    def _headers(self, known: _Known, event_id: str, value: bytes, row_hash: str) -> Headers:
        request = envelope.request_id(self._tenant.tenant_id, "corrections", event_id)
        first = Position(known.topic, known.partition, known.offset, known.logged_ms)
        headers = envelope.headers_of(
            event_id=event_id,
            type=self._entity.type,
            source="gateway",
            accepted_ms=known.accepted_ms,
            rows=1,
            value=value,
            traceparent=self._traceparent,
            request=_place(request, self._token.upload_id, known),
            body_hash=row_hash,
        )
        return headers + Redrive(first, (known.index,)).headers()

    def _send(self, value: bytes, headers: Headers) -> None:
        topic = self._state.settings.named(topics.INGESTION)
        try:
            self._sent.append(
                self._state.producer.send(topic, topics.partition_key(self._tenant.tenant_id), value, headers)
            )
        except Unavailable as exc:
            raise unavailable(str(exc)) from exc

    async def _acknowledged(self) -> None:
        """Raises Problem once nothing is under way any more."""
        for said in await asyncio.gather(*self._sent, return_exceptions=True):
            if isinstance(said, Unavailable | Rejected):
                raise refused(said) from said
            if isinstance(said, BaseException):
                raise said

    def _refuse(self, number: int, errors: Sequence[parse.FieldError]) -> None:
        """Answer what is wrong with a line of the body."""
        self._answer.rejected += 1
        room = MAX_ERRORS - len(self._answer.errors)
        numbered: list[parse.RowError] = [
            {"line": number, "pointer": one["pointer"], "code": one["code"], "detail": one["detail"]} for one in errors
        ]
        self._answer.errors += numbered[:room]
        self._answer.errors_omitted += max(0, len(numbered) - room)


_correction: Final = msgspec.json.Decoder(Correction)


def _read(line: bytes) -> Correction:
    """A line of the body, its row as JSON. Raises _Wrong."""
    try:
        correction = _correction.decode(line)
        if (row := bytes(correction.row)).startswith(b'"'):
            row = msgspec.json.decode(row, type=str).encode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        detail = f"expected a line of …/errors, {{chunk, line, row}}, with its row put right: {exc}"
        raise _wrong("bad_correction", detail) from exc
    if bytes(correction.row)[:1] not in (b"{", b'"'):
        raise _wrong("bad_correction", "row takes an object, or text that is one as JSON", "/row")
    return Correction(correction.chunk, correction.line, msgspec.Raw(row))


def _wrong(code: str, detail: str, pointer: str = "") -> _Wrong:
    return _Wrong([_fault(code, detail, pointer)])


def _fault(code: str, detail: str, pointer: str) -> parse.FieldError:
    return {"pointer": pointer, "code": code, "detail": detail}


def _named(chunk: int, line: int) -> str:
    return f"line {line} of chunk {chunk}"


def _place(request: UUID, upload_id: UUID, known: _Known) -> envelope.Request:
    """By its line in its chunk the ledger knows which row a correction is of."""
    return envelope.Request(request, known.line, known.line, known.line, upload_id, known.chunk)
