"""The messages of one request: its rows parsed, checked and sent part by part, acknowledged together."""

import asyncio
import hashlib
import time
from itertools import chain
from typing import Annotated, Final

from msgspec import UNSET, Meta, Struct, UnsetType
from starlette.requests import Request

from gateway import parse, traces
from gateway.measured import received
from gateway.problems import Problem
from producers.tenants import Tenant
from schemas import codec, envelope, topics
from schemas.envelope import ROWS_REJECTED
from schemas.errors import Rejected, Unavailable
from schemas.rows import Entity

MAX_ERRORS: Final = 1_000
"""Row errors in one answer; `errors_omitted` counts the others."""
_MAX_LINES: Final = 100_000
"""Lines of a body; a short line costs a hundred times its bytes."""
_KEPT_OF_ROW: Final = 10_000
"""Characters kept of a refused row."""


class Answer(Struct):
    """What became of the rows of a request."""

    event_ids: Annotated[list[str], Meta(description="Of the messages that carry the accepted rows.")]
    accepted: Annotated[int, Meta(description="Rows.")]
    rejected: Annotated[int, Meta(description="Rows.")]
    errors: Annotated[list[parse.RowError], Meta(description="Several a row, and 1,000 at most.")]
    errors_omitted: int
    rejected_ids: (
        Annotated[list[str], Meta(description="Of the messages that keep the rejected rows, where they are kept.")]
        | UnsetType
    ) = UNSET

    def keep(self, rejected_id: str) -> None:
        """One more message keeps rejected rows."""
        self.rejected_ids = [*(self.rejected_ids or ()), rejected_id]


class Body:
    """The lines of a body, and what a resend is known by: the hash of all, and how many there are."""

    def __init__(self, raw: bytes, *, single: bool = False, one_message: bool = False) -> None:
        """Raises Problem: 400 for a body without rows, 413 for one with too many lines or more than `one_message`."""
        self._raw, self._single = raw, single
        self.lines = 1 if single else raw.rstrip().count(b"\n") + 1
        if max(raw.count(b"\n"), self.lines) > _MAX_LINES:  # the last line may have no line feed
            raise Problem(413, "too_many_lines", f"a body may have {_MAX_LINES} lines; send smaller chunks")
        self.hash = hashlib.sha256(raw).hexdigest()
        parts = parse.parts_of(parse.lines_of(raw, single=single))
        if (first := next(parts, None)) is None:
            raise Problem(400, "empty_body", "the body has no rows; send NDJSON, one object a line")
        if one_message and next(parts, None) is not None:
            raise _not_one_message()
        self.parts = chain([first], parts)

    @property
    def rows(self) -> int:
        """Lines that are not empty, good or not."""
        return sum(1 for _ in parse.lines_of(self._raw, single=self._single))


class Publishing:
    """Takes the parts of a body in order. Each message carries lines; all of them together cover the whole body."""

    def __init__(
        self,
        request: Request,
        tenant: Tenant,
        entity: Entity,
        origin: envelope.Request,
        body_hash: str,
        *,
        dry: bool = False,
        all_or_nothing: bool = False,
    ) -> None:
        self._request, self._state, self._tenant, self._entity, self._origin = (
            request,
            request.state,
            tenant,
            entity,
            origin,
        )
        self._body_hash, self._dry, self._all_or_nothing = body_hash, dry, all_or_nothing
        self._traceparent = traces.traceparent(request.scope)
        self._accepted_ms = time.time_ns() // 1_000_000
        self._sent: list[asyncio.Future[int]] = []
        self._answer = Answer([], 0, 0, [], 0)
        self._last_line = 0

    async def publish(self, body: Body) -> Answer:
        """Send all parts and wait for their acknowledgement.

        Raises Problem: 413 for what fits no message, 503 when the outcome is unknown.
        """
        for part in body.parts:
            if self._last_line:
                await asyncio.sleep(0)  # a large body must not keep others waiting
            await self._take(part)
        await self._acknowledged()
        received(self._request, self._entity.name, "accepted", 0 if self._dry else self._answer.accepted)
        received(self._request, self._entity.name, "rejected", self._answer.rejected)
        return self._answer

    async def _take(self, part: list[parse.Line]) -> None:
        """Parse a part and hand its rows to Kafka's client: the good ones, and the others with what is wrong."""
        first, last = self._last_line + 1, part[-1][0]
        self._last_line = last
        max_line = self._state.settings.max_line_bytes
        rows, errors = await parse.parse(self._entity, part, self._tenant.currency, max_line)
        good = rows if not (errors and self._all_or_nothing) else []
        self._answer.accepted += len(good)
        if good:
            errors = sorted(errors + self._send_rows(good, first, last), key=lambda error: error["line"])
        self._answer.rejected += len(part) - len(rows)
        room = MAX_ERRORS - len(self._answer.errors)
        self._answer.errors += errors[:room]
        self._answer.errors_omitted += max(0, len(errors) - room)
        if errors:
            await asyncio.sleep(0)
            self._send_rejected(_rejected_rows(dict(part), errors), first, last)

    def _send_rows(self, rows: list[parse.Row], first: int, last: int) -> parse.RowErrors:
        """Send rows as one message, or as halves where their Avro form is larger than their JSON."""
        value = codec.frame(self._entity.type, self._tenant.tenant_id, [row for _, row in rows])
        if len(value) <= topics.MAX_MESSAGE_BYTES:
            event_id = self._send(self._entity.type, f"{first}-{last}", value, len(rows), first, last)
            self._answer.event_ids.append(event_id)
            return []
        if self._all_or_nothing:
            raise _not_one_message()
        if len(rows) == 1:
            self._answer.accepted -= 1
            self._answer.rejected += 1
            detail = f"one row may have {topics.MAX_MESSAGE_BYTES} bytes"
            return [{"line": rows[0][0], "pointer": "", "code": "row_too_large", "detail": detail}]
        half = len(rows) // 2
        between = rows[half][0]
        return self._send_rows(rows[:half], first, between - 1) + self._send_rows(rows[half:], between, last)

    def _send_rejected(self, rejected: list[codec.Record], first: int, last: int) -> None:
        """Publish what was refused, so that it can be shown again; it counts as no row."""
        record = {"tenant_id": self._tenant.tenant_id, "entity": self._entity.name, "rejected": rejected}
        value = codec.encode(ROWS_REJECTED, record)
        if len(value) <= topics.MAX_MESSAGE_BYTES or len(rejected) == 1:
            event_id = self._send(ROWS_REJECTED, f"rejected {first}-{last}", value, 0, first, last)
            if not self._dry:
                self._answer.keep(event_id)
            return
        half = len(rejected) // 2
        between = rejected[half]["line"]
        self._send_rejected(rejected[:half], first, between - 1)
        self._send_rejected(rejected[half:], between, last)

    def _send(self, type_: str, part: str, value: bytes, rows: int, first: int, last: int) -> str:
        tenant_id, settings, origin = self._tenant.tenant_id, self._state.settings, self._origin
        event_id = envelope.event_id(settings.secret, tenant_id, origin.id, part)
        if self._dry:
            return event_id
        headers = envelope.headers_of(
            event_id=event_id,
            type=type_,
            source="gateway",
            accepted_ms=self._accepted_ms,
            rows=rows,
            value=value,
            traceparent=self._traceparent,
            request=envelope.Request(origin.id, first, last, origin.total, origin.upload, origin.chunk),
            body_hash=self._body_hash,
        )
        key = topics.partition_key(tenant_id)
        try:
            topic = settings.named(topics.INGESTION)
            sent = self._state.producer.send(topic, key, value, headers)
            self._sent.append(traces.follow(sent, self._traceparent, topic, event_id, tenant_id))
        except Unavailable as exc:
            raise unavailable(str(exc)) from exc
        return event_id

    async def _acknowledged(self) -> None:
        failed: Unavailable | Rejected | None = None
        for sent in self._sent:  # all of them, so that nothing is under way when the client hears of it
            try:
                await sent
            except (Unavailable, Rejected) as exc:
                failed = failed or exc
        if failed is not None:
            raise refused(failed) from failed


async def publish_one(
    request: Request, tenant_id: str, type_: str, origin: envelope.Request, record: codec.Record, content: str
) -> None:
    """Publish a message that carries no rows; `content` is what makes a second one the same. Errors as `publish`."""
    state = request.state
    value, traceparent = codec.encode(type_, record), traces.traceparent(request.scope)
    event_id = envelope.event_id(state.settings.secret, tenant_id, origin.id, "1-1")
    headers = envelope.headers_of(
        event_id=event_id,
        type=type_,
        source="gateway",
        accepted_ms=time.time_ns() // 1_000_000,
        rows=0,
        value=value,
        traceparent=traceparent,
        request=origin,
        body_hash=hashlib.sha256(content.encode()).hexdigest(),
    )
    try:
        topic = state.settings.named(topics.INGESTION)
        sent = state.producer.send(topic, topics.partition_key(tenant_id), value, headers)
        await traces.follow(sent, traceparent, topic, event_id, tenant_id)
    except Unavailable as exc:
        raise unavailable(str(exc)) from exc


def _rejected_rows(lines: dict[int, bytes], errors: parse.RowErrors) -> list[codec.Record]:
    """Errors gathered a line, with the line's text, in the errors' order."""
    rejected: dict[int, codec.Record] = {}
    for error in errors:
        line = error["line"]
        if line not in rejected:
            text = lines[line][:_KEPT_OF_ROW].decode(errors="replace").replace("\x00", "�")
            rejected[line] = {"line": line, "row": text, "errors": []}
        rejected[line]["errors"].append({name: error[name] for name in ("pointer", "code", "detail")})
    return list(rejected.values())


def _not_one_message() -> Problem:
    limits = f"{topics.MAX_ROWS} rows and {topics.MAX_MESSAGE_BYTES} bytes"
    return Problem(413, "too_many_rows", f"on_error=reject takes what fits one message: {limits}")


def refused(why: Unavailable | Rejected) -> Problem:
    """For what Kafka did not take."""
    return unavailable(str(why)) if isinstance(why, Unavailable) else Problem(413, why.code, why.detail)


def unavailable(why: str) -> Problem:
    """For an outcome that is unknown."""
    return Problem(
        503,
        "kafka_unavailable",
        f"{why}. Whether it was taken is unknown: send it again with the same Idempotency-Key",
        retry_after=2,
    )
