"""POST /stock-events: a body of movements is checked line by line and published as exactly one message.

What is wrong with a line depends on the body alone, so that a first answer is made again of the body: the ledger needs
to know only that the body has come. The event id says which body it is, the request id which Idempotency-Key; under
both the same movements are folded once, and a key's other body ends as a conflict.
"""

import re
import time
from contextlib import ExitStack
from typing import Final

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from gateway import bodies, idempotency, parse, stock_outcomes, traces
from gateway.ingest import answered, choice, is_json, known_parameters
from gateway.lines import Lines
from gateway.measured import received
from gateway.problems import Problem
from gateway.publishing import MAX_ERRORS, Answer, Body, unavailable
from gateway.stock_outcomes import Before
from gateway.tenants import authenticated
from producers.tenants import Tenant
from schemas import codec, envelope, topics
from schemas.errors import Rejected, Unavailable
from schemas.movements import MOVEMENT

_PARAMETERS: Final = {"on_error", "validate_only", "wait"}
_WAIT: Final = re.compile(r"([1-9]|[12][0-9]|30)s?", re.ASCII)


class Checked(Struct):
    """A body's good movements as a message's value, the answer to it, and what a resend is known by."""

    value: bytes
    answer: Answer
    origin: envelope.Request
    body_hash: str

    def products(self) -> list[str]:
        """The products that the good movements are of, each once."""
        return list({row["product_id"]: None for row in codec.decode(MOVEMENT.type, self.value)["rows"]})


async def stock_events(request: Request) -> Response:
    """Send movements of stock: many as NDJSON, one as JSON.

    202 once Kafka has acknowledged the good ones, which are one message: they are folded in their order, each for
    itself. What is wrong with the others stands in `errors`. With `wait`, lines say what became of each as soon as it
    is decided.
    """
    key = request.state.idempotency_key = idempotency.key_of(request)
    tenant = authenticated(request)
    single = is_json(request)
    if single:
        await request.state.limits.take(request, tenant)
    known_parameters(request, _PARAMETERS)
    all_or_nothing = choice(request, "on_error", ("skip", "reject")) == "reject"
    dry = choice(request, "validate_only", ("false", "true")) == "true"
    wait = _wait(request)
    if not dry and not request.state.kafka.reachable:
        raise unavailable("Kafka is away")
    raw = await bodies.read(request, tenant.tenant_id, request.state.settings, request.state.inflight)
    try:
        bodies.must_be_rows(request, raw)
        if single:
            await request.state.limits.take_product(request, tenant, raw)
        checked = await _check(request, tenant, Body(raw, single=single), key, all_or_nothing=all_or_nothing)
    finally:
        request.state.inflight.give_back(tenant.tenant_id, len(raw))
    headers = {"Idempotency-Key": key}
    if dry or not checked.answer.accepted:
        return answered(checked.answer, headers, dry=dry)
    before = Before(
        request.state.database, tenant.tenant_id, checked.products() if wait else [], checked.answer.accepted
    )
    if idempotency.was_given(request):
        known = await idempotency.came_before(request.state.database, tenant.tenant_id, checked.origin.id)
        if known is not None:
            event_id, before.offset = known
            if event_id != checked.answer.event_ids[0]:
                raise idempotency.OtherBody
            headers["Idempotent-Replayed"] = "true"
            if not wait:
                return answered(checked.answer, headers)
            return Lines(202, stock_outcomes.replayed(checked.answer, before, wait), headers)
    if not wait:
        await _publish(request, tenant, checked)
        return answered(checked.answer, headers)
    with ExitStack() as until_answered:
        # Before it is published: what becomes of it can be there before Kafka's acknowledgement is.
        outcomes = request.state.outcomes
        waiter = until_answered.enter_context(outcomes.waiter(tenant.tenant_id, checked.answer.event_ids[0]))
        await outcomes.begun(wait)
        await _publish(request, tenant, checked)
        lines = stock_outcomes.followed(waiter, checked.answer, before, wait)
        return Lines(202, lines, headers, until_answered.pop_all().close)


async def _check(request: Request, tenant: Tenant, body: Body, key: str, *, all_or_nothing: bool) -> Checked:
    """Raises Problem 413 for what fits no single message."""
    rows: list[parse.Row] = []
    answer = Answer([], 0, 0, [], 0)
    lines = 0
    for part in body.parts:
        lines += len(part)
        if lines > topics.MAX_MOVEMENTS:
            raise _not_one_message()
        good, errors = await parse.parse(MOVEMENT, part, tenant.currency, request.state.settings.max_line_bytes)
        rows += good
        room = MAX_ERRORS - len(answer.errors)
        answer.errors += errors[:room]
        answer.errors_omitted += max(0, len(errors) - room)
    value = codec.frame(MOVEMENT.type, tenant.tenant_id, [row for _, row in rows])
    if len(value) > topics.MAX_MESSAGE_BYTES:
        raise _not_one_message()
    answer.rejected = lines - len(rows)
    id_ = envelope.request_id(tenant.tenant_id, "stock-events", key)
    if rows and not (answer.rejected and all_or_nothing):
        answer.accepted = len(rows)
        part_ = f"1-{body.lines} {body.hash}"
        answer.event_ids = [envelope.event_id(request.state.settings.secret, tenant.tenant_id, id_, part_)]
    received(request, MOVEMENT.name, "rejected", answer.rejected)
    return Checked(value, answer, envelope.Request(id_, 1, body.lines, body.lines), body.hash)


async def _publish(request: Request, tenant: Tenant, checked: Checked) -> None:
    """Return once Kafka has acknowledged. Raises Problem: 413 for what fits no message, 503 for an unknown outcome."""
    state = request.state
    headers = envelope.headers_of(
        event_id=checked.answer.event_ids[0],
        type=MOVEMENT.type,
        source="gateway",
        accepted_ms=time.time_ns() // 1_000_000,
        rows=checked.answer.accepted,
        value=checked.value,
        traceparent=(traceparent := traces.traceparent(request.scope)),
        request=checked.origin,
        body_hash=checked.body_hash,
    )
    try:
        topic = state.settings.named(topics.STOCK)
        sent = state.producer.send(topic, topics.partition_key(tenant.tenant_id), checked.value, headers)
        await traces.follow(sent, traceparent, topic, checked.answer.event_ids[0], tenant.tenant_id)
    except Unavailable as exc:
        raise unavailable(str(exc)) from exc
    except Rejected as exc:
        raise Problem(413, exc.code, exc.detail) from exc
    received(request, MOVEMENT.name, "accepted", checked.answer.accepted)


def _wait(request: Request) -> int:
    """How many seconds the client would wait; 0 where it would not."""
    given = request.query_params.get("wait") if request.scope["query_string"] else None
    if given is None:
        return 0
    if (found := _WAIT.fullmatch(given)) is None:
        raise Problem(400, "bad_parameter", f"wait takes 1s to 30s, not {given[:40]!r}", parameter="wait")
    return int(found[1])


def _not_one_message() -> Problem:
    limits = f"{topics.MAX_MOVEMENTS:,} movements and {topics.MAX_MESSAGE_BYTES:,} bytes"
    return Problem(413, "too_many_rows", f"a body of movements is one message, which takes {limits}; send several")
