"""POST /ingest/{customers,products,orders}: check every line, publish the good ones, answer what became of each."""

import asyncio
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
"""Row errors in one answer; `rejected` counts them all."""


async def ingest(request: Request) -> Response:
    """202 with `{event_ids, accepted, rejected, errors}` once Kafka has acknowledged; see DESIGN, "HTTP contract"."""
    key = request.state.idempotency_key = _idempotency_key(request)
    entity = ENTITIES.get(request.path_params["entity"])
    if entity is None:
        raise Problem(404, "not_found", f"there is nothing at this path; ingest takes {', '.join(ENTITIES)}")
    tenant = request.state.registry.authenticate(request.path_params["tenant_id"], api_key(request))
    all_or_nothing = _choice(request, "on_error", ("skip", "reject")) == "reject"
    validate_only = _choice(request, "validate_only", ("false", "true")) == "true"
    if not validate_only and not request.state.kafka.reachable:
        raise _unavailable("Kafka is away")
    body = await bodies.read(request, request.state.settings, request.state.inflight)
    try:
        lines = parse.lines_of(body, single=_is_json(request))
        if not lines:
            raise Problem(400, "empty_body", "the body has no rows; send NDJSON, one object a line")
        parts = list(parse.parts_of(lines))
        if all_or_nothing and len(parts) > 1:
            raise Problem(413, "too_many_rows", f"on_error=reject takes {topics.MAX_ROWS} rows at most, in one message")
        publishing = _Publishing(request, tenant, entity, key, dry=validate_only)
        for part in parts:
            publishing.take(part, all_or_nothing=all_or_nothing)
            await asyncio.sleep(0)  # a large body must not keep others waiting
        return await publishing.answer()
    finally:
        request.state.inflight.give_back(len(body))


class _Publishing:
    """The messages of one request: parsed and sent part by part, awaited together."""

    def __init__(self, request: Request, tenant: Tenant, entity: Entity, key: str, *, dry: bool) -> None:
        self._request, self._tenant, self._entity, self._key, self._dry = request, tenant, entity, key, dry
        self._accepted_ms = time.time_ns() // 1_000_000
        self._sent: list[asyncio.Future[int]] = []
        self._event_ids: list[str] = []
        self._accepted = 0
        self._bad_lines = 0
        self._errors: parse.RowErrors = []

    def take(self, part: list[parse.Line], *, all_or_nothing: bool) -> None:
        """Parse a part and hand its good rows to Kafka's client."""
        settings = self._request.state.settings
        rows, errors = parse.parse(self._entity, part, self._tenant.currency, settings.max_line_bytes)
        self._bad_lines += len(part) - len(rows)
        self._errors += errors[: _MAX_ERRORS - len(self._errors)]
        if errors and all_or_nothing:
            return
        self._accepted += len(rows)
        if rows and not self._dry:
            self._send(rows, part[0][0], part[-1][0])

    def _send(self, rows: list[codec.Record], first: int, last: int) -> None:
        tenant_id = self._tenant.tenant_id
        event_id = envelope.event_id(tenant_id, f"ingest/{self._entity.name}", self._key, first, last)
        traceparent = self._request.headers.get("traceparent")
        value = codec.encode(self._entity.type, {"tenant_id": tenant_id, "rows": rows})
        headers = envelope.headers_of(
            event_id=event_id,
            type=self._entity.type,
            source="gateway",
            accepted_ms=self._accepted_ms,
            rows=len(rows),
            value=value,
            traceparent=traceparent.encode() if traceparent else None,
        )
        self._event_ids.append(event_id)
        try:
            topic = self._request.state.settings.named(topics.INGESTION)
            self._sent.append(self._request.state.producer.send(topic, topics.partition_key(tenant_id), value, headers))
        except Unavailable as exc:
            raise _unavailable(str(exc)) from exc

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
                422, "rows_rejected", f"no row was accepted; {self._bad_lines} are wrong", errors=self._errors
            )
        body: dict[str, Any] = {
            "event_ids": self._event_ids,
            "accepted": self._accepted,
            "rejected": self._bad_lines,
            "errors": self._errors,
        }
        if self._dry:
            return json(200, body | {"validated_only": True}, {"Idempotency-Key": self._key})
        return json(202, body, {"Idempotency-Key": self._key})


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
    if not 1 <= len(given) <= 200 or not given.isascii() or not given.isprintable():
        raise Problem(400, "bad_idempotency_key", "Idempotency-Key takes 1 to 200 printable ASCII characters")
    return given


def _choice(request: Request, name: str, choices: tuple[str, ...]) -> str:
    """A query parameter that knows few words; the first is its default."""
    given = request.query_params.get(name, choices[0]).lower()
    if given not in choices:
        raise Problem(400, "bad_parameter", f"{name} takes {' or '.join(choices)}, not {given!r}")
    return given


def _is_json(request: Request) -> bool:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"
