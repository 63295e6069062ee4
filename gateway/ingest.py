"""POST /ingest/{customers,products,orders}: check every line, publish the good ones, answer what became of each."""

import asyncio
import re
import secrets
import time
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from gateway import bodies, parse
from gateway.problems import Problem, json
from gateway.tenants import api_key
from producers.tenants import Tenant
from schemas import codec, envelope, metrics, topics
from schemas.errors import Rejected, Unavailable
from schemas.rows import ENTITIES, Entity

_MAX_ERRORS: Final = 1_000
"""Row errors in one answer; `errors_omitted` counts the others."""
_TRACEPARENT: Final = re.compile("[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")  # W3C Trace Context
_MAX_LINES: Final = 100_000
"""Lines of a body; a short line costs a hundred times its bytes."""


async def ingest(request: Request) -> Response:
    """202 with `{event_ids, accepted, rejected, errors}` once Kafka has acknowledged; see DESIGN, "HTTP contract"."""
    key = request.state.idempotency_key = _idempotency_key(request)
    entity = ENTITIES.get(request.path_params["entity"])
    if entity is None:
        raise Problem(404, "not_found", f"there is nothing at this path; ingest takes {', '.join(ENTITIES)}")
    tenant = request.state.registry.authenticate(request.path_params["tenant_id"], api_key(request))
    if _is_json(request):
        await request.state.limits.take(request, tenant)
    all_or_nothing = _choice(request, "on_error", ("skip", "reject")) == "reject"
    validate_only = _choice(request, "validate_only", ("false", "true")) == "true"
    if not validate_only and not request.state.kafka.reachable:
        raise _unavailable("Kafka is away")
    body = await bodies.read(request, tenant.tenant_id, request.state.settings, request.state.inflight)
    try:
        if entity.name == "products" and _is_json(request):
            await request.state.limits.take_product(request, tenant, body)
        if body.count(b"\n") > _MAX_LINES:
            raise Problem(413, "too_many_lines", f"a body may have {_MAX_LINES} lines; send smaller chunks")
        parts = parse.parts_of(parse.lines_of(body, single=_is_json(request)))
        if (part := next(parts, None)) is None:
            raise Problem(400, "empty_body", "the body has no rows; send NDJSON, one object a line")
        if all_or_nothing and next(parts, None) is not None:
            raise _not_one_message()
        publishing = _Publishing(request, tenant, entity, key, dry=validate_only, all_or_nothing=all_or_nothing)
        while part is not None:
            publishing.take(part)
            await asyncio.sleep(0)  # a large body must not keep others waiting
            part = next(parts, None)
        return await publishing.answer()
    finally:
        request.state.inflight.give_back(tenant.tenant_id, len(body))


class _Publishing:
    """The messages of one request: parsed and sent part by part, awaited together."""

    def __init__(
        self, request: Request, tenant: Tenant, entity: Entity, key: str, *, dry: bool, all_or_nothing: bool
    ) -> None:
        self._request, self._tenant, self._entity, self._key, self._dry = request, tenant, entity, key, dry
        self._all_or_nothing = all_or_nothing
        self._accepted_ms = time.time_ns() // 1_000_000
        self._sent: list[asyncio.Future[int]] = []
        self._event_ids: list[str] = []
        self._accepted = 0
        self._bad_lines = 0
        self._errors: parse.RowErrors = []
        self._omitted = 0

    def take(self, part: list[parse.Line]) -> None:
        """Parse a part and hand its good rows to Kafka's client."""
        settings = self._request.state.settings
        rows, errors = parse.parse(self._entity, part, self._tenant.currency, settings.max_line_bytes)
        self._bad_lines += len(part) - len(rows)
        self._note(errors)
        if errors and self._all_or_nothing:
            return
        self._accepted += len(rows)
        if rows and not self._dry:
            self._send(rows, part[0][0], part[-1][0])

    def _note(self, errors: parse.RowErrors) -> None:
        room = _MAX_ERRORS - len(self._errors)
        self._errors += errors[:room]
        self._omitted += max(0, len(errors) - room)

    def _send(self, rows: list[codec.Record], first: int, last: int) -> None:
        tenant_id = self._tenant.tenant_id
        request = envelope.request_id(tenant_id, f"ingest/{self._entity.name}", self._key)
        event_id = envelope.event_id(self._request.state.settings.secret, tenant_id, request, f"{first}-{last}")
        traceparent = self._request.headers.get("traceparent", "")
        value = codec.encode(self._entity.type, {"tenant_id": tenant_id, "rows": rows})
        if len(value) > topics.MAX_MESSAGE_BYTES:
            self._send_halves(rows, first, last)
            return
        headers = envelope.headers_of(
            event_id=event_id,
            type=self._entity.type,
            source="gateway",
            accepted_ms=self._accepted_ms,
            rows=len(rows),
            value=value,
            traceparent=traceparent.encode() if _TRACEPARENT.fullmatch(traceparent) else None,
        )
        self._event_ids.append(event_id)
        try:
            topic = self._request.state.settings.named(topics.INGESTION)
            self._sent.append(self._request.state.producer.send(topic, topics.partition_key(tenant_id), value, headers))
        except Unavailable as exc:
            raise _unavailable(str(exc)) from exc

    def _send_halves(self, rows: list[codec.Record], first: int, last: int) -> None:
        """For rows whose Avro form is larger than their JSON. It depends on the body alone, as every split does."""
        if self._all_or_nothing:
            raise _not_one_message()
        if len(rows) == 1:
            self._accepted -= 1
            self._bad_lines += 1
            detail = f"one row may have {topics.MAX_MESSAGE_BYTES} bytes"
            self._note([{"line": rows[0]["line"], "pointer": "", "code": "row_too_large", "detail": detail}])
            return
        half = len(rows) // 2
        between = rows[half]["line"]
        self._send(rows[:half], first, between - 1)
        self._send(rows[half:], between, last)

    async def answer(self) -> Response:
        """Wait for every acknowledgement. Raises Problem 422 when no row was good, 503 when the outcome is unknown."""
        results = await asyncio.gather(*self._sent, return_exceptions=True)
        for result in results:
            if isinstance(result, Unavailable):
                raise _unavailable(str(result))
            if isinstance(result, Rejected):
                raise Problem(413, result.code, result.detail)
            if isinstance(result, BaseException):
                raise result
        verdicts = metrics.ROWS_RECEIVED
        verdicts.labels(self._entity.name, "accepted").inc(0 if self._dry else self._accepted)
        verdicts.labels(self._entity.name, "rejected").inc(self._bad_lines)
        if not self._accepted:
            raise Problem(
                422,
                "rows_rejected",
                f"no row was accepted; {self._bad_lines} are wrong",
                errors=self._errors,
                errors_omitted=self._omitted,
            )
        body: dict[str, Any] = {
            "event_ids": self._event_ids,
            "accepted": self._accepted,
            "rejected": self._bad_lines,
            "errors": self._errors,
            "errors_omitted": self._omitted,
        }
        if self._dry:
            return json(200, body | {"validated_only": True}, {"Idempotency-Key": self._key})
        return json(202, body, {"Idempotency-Key": self._key})


def _not_one_message() -> Problem:
    limits = f"{topics.MAX_ROWS} rows and {topics.MAX_MESSAGE_BYTES} bytes"
    return Problem(413, "too_many_rows", f"on_error=reject takes what fits one message: {limits}")


def _unavailable(why: str) -> Problem:
    return Problem(
        503,
        "kafka_unavailable",
        f"{why}. Whether it was taken is unknown: send it again with the same Idempotency-Key",
        retry_after=2,
    )


def _idempotency_key(request: Request) -> str:
    """The caller's key, quoted (RFC 9651 string) or bare, or a new one."""
    given = request.headers.get("idempotency-key", "").strip()
    if not given:
        return secrets.token_urlsafe(18)
    if len(given) >= 2 and given[0] == given[-1] == '"':
        given = given[1:-1]
    if not 1 <= len(given) <= 200 or not given.isascii() or not given.isprintable() or '"' in given:
        raise Problem(
            400,
            "bad_idempotency_key",
            "Idempotency-Key takes 1 to 200 printable ASCII characters, without quotes inside",
        )
    return given


def _choice(request: Request, name: str, choices: tuple[str, ...]) -> str:
    """A query parameter that knows few words; the first is its default."""
    given = request.query_params.get(name, choices[0]).lower()
    if given not in choices:
        raise Problem(400, "bad_parameter", f"{name} takes {' or '.join(choices)}, not {given!r}")
    return given


def _is_json(request: Request) -> bool:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"
