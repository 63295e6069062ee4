"""Messages for topic `prices`, and the answer to the request that they come from: once acknowledged, or as judged."""

import asyncio
import time
from contextlib import ExitStack

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from gateway import accept, idempotency, price_outcomes, traces
from gateway.filters import before_last_of_path
from gateway.headers import header
from gateway.ingest import answered
from gateway.lines import Lines
from gateway.operation import JSON, NDJSON
from gateway.price_outcomes import History, Published
from gateway.problems import Problem
from gateway.publishing import Answer, unavailable
from producers.tenants import Tenant
from schemas import codec, envelope, topics
from schemas.errors import Rejected, Unavailable


class Message(Struct):
    """A part of a request: the value, how many rows it has, its event id, and the lines that it carries."""

    type: str
    value: bytes
    rows: int
    event_id: str
    origin: envelope.Request

    def products(self) -> list[str]:
        """The products that its rows are about, each once."""
        return list({row["product_id"]: None for row in codec.decode(self.type, self.value)["rows"]})


def product_of_path(request: Request, last: bytes) -> str:
    """The product between /products/ and `/<last>`, slashes and all. Raises Problem 404."""
    product_id = before_last_of_path(request, last)
    if product_id is None:  # the slash before it came encoded: it is the product's own
        raise Problem(404, "not_found", "there is nothing at this path")
    return product_id


def media_type(request: Request) -> str:
    """What the answer is to be. Raises Problem 406."""
    return accept.best(header(request, b"accept"), (JSON, NDJSON))


async def published(
    request: Request, tenant: Tenant, answer: Answer, messages: list[Message], body_hash: str
) -> Response:
    """Publish messages of one request, unless they came before, and answer 202.

    Raises Problem: 422 where another body came under the key, 503 for an outcome that is unknown or too many streams.
    """
    state = request.state
    headers = {"Idempotency-Key": state.idempotency_key}
    lines = media_type(request) == NDJSON
    parts = [Published(message.event_id, message.rows, message.products) for message in messages]
    history = History(state.database, tenant.tenant_id, state.settings.named(topics.PRICES))
    if idempotency.was_given(request) and await idempotency.whole_body_came(
        state.database, tenant.tenant_id, messages[0].origin, body_hash
    ):
        headers["Idempotent-Replayed"] = "true"
        if lines:
            return Lines(202, price_outcomes.replayed(answer, parts, history), headers)
        return answered(answer, headers)
    if not lines:
        await _publish(request, tenant, messages, body_hash)
        return answered(answer, headers)
    with ExitStack() as until_answered:
        # Before they are published: a verdict can be there before Kafka's acknowledgement is.
        waiter = until_answered.enter_context(state.outcomes.waiter(tenant.tenant_id, *answer.event_ids))
        await state.outcomes.begun(price_outcomes.PATIENCE_S)
        await _publish(request, tenant, messages, body_hash)
        told = price_outcomes.followed(waiter, answer, parts, history)
        return Lines(202, told, headers, until_answered.pop_all().close)


async def _publish(request: Request, tenant: Tenant, messages: list[Message], body_hash: str) -> None:
    """Return once Kafka has acknowledged all."""
    sent: list[asyncio.Future[int]] = []
    failed: BaseException | None = None
    try:
        for message in messages:
            sent.append(_send(request, tenant, message, body_hash))
    except Unavailable as exc:  # what is sent already must be waited for
        failed = exc
    answers = await asyncio.gather(*sent, return_exceptions=True)
    failed = next((each for each in answers if isinstance(each, BaseException)), failed)
    if isinstance(failed, Unavailable):
        raise unavailable(str(failed)) from failed
    if isinstance(failed, Rejected):
        raise Problem(413, failed.code, failed.detail) from failed
    if failed is not None:
        raise failed


def _send(request: Request, tenant: Tenant, message: Message, body_hash: str) -> "asyncio.Future[int]":
    state = request.state
    headers = envelope.headers_of(
        event_id=message.event_id,
        type=message.type,
        source="gateway",
        accepted_ms=time.time_ns() // 1_000_000,
        rows=message.rows,
        value=message.value,
        traceparent=(traceparent := traces.traceparent(request.scope)),
        request=message.origin,
        body_hash=body_hash,
    )
    topic, key = state.settings.named(topics.PRICES), topics.partition_key(tenant.tenant_id)
    sent: asyncio.Future[int] = state.producer.send(topic, key, message.value, headers)
    return traces.follow(sent, traceparent, topic, message.event_id, tenant.tenant_id)
