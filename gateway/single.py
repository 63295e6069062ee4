"""One JSON event in few steps: the short way of `ingest`, for what is plain and right, as nearly all events are.

It says no error of its own. What is odd, wrong, limited or not here yet goes the long way, before anything has been
done about it. Both ways publish the same message and give the same answer (tests/test_single.py).
"""

import asyncio
import hashlib
import time
from typing import Any, Final

import msgspec
from msgspec import Struct
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway import idempotency, parse, traces
from gateway.ingest import ingest
from gateway.measured import WHOSE, one_accepted
from gateway.problems import Problem, render
from gateway.protocol import WHOLE
from gateway.publishing import Answer, refused
from gateway.tenants import key_in
from producers.tenants import Tenant
from schemas import codec, envelope, metrics, topics
from schemas.errors import Rejected, Unavailable
from schemas.rows import ENTITIES, Entity
from schemas.settings import Settings

_BASE: Final = "/api/v1/tenants/"
_JSON: Final = (b"application/json", b"application/json; charset=utf-8", b"application/json;charset=utf-8")
_MOST: Final = 65_536
"""Bytes of a body; larger ones gain little."""
_SOON_S: Final = 1.0
_encode: Final = msgspec.json.Encoder().encode


class _Event(Struct):
    """A plain event: whose, of which kind, under which headers, its body, and its row of a batch."""

    tenant: Tenant
    entity: Entity
    headers: dict[bytes, bytes]
    body: bytes = b""
    row: bytes = b""


class SingleEvents:
    """Answers plain events and hands on everything else; plain ASGI."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._secret = settings.secret
        self._topic = settings.named(topics.INGESTION)
        self._most = min(_MOST, settings.max_body_bytes, settings.max_line_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and (event := _recognised(scope)) is not None:
            message = await (receive() if WHOLE in scope.get("extensions", ()) else _soon(receive))
            if message is not None:
                event.body = message.get("body", b"")
                if not message.get("more_body") and self._good(event, scope["state"]):
                    scope["endpoint"] = ingest
                    await self._publish(event, scope, send)
                    return
                receive = _again(message, receive)
        await self._app(scope, receive, send)

    def _good(self, event: _Event, state: dict[str, Any]) -> bool:
        """Whether its row is good and can be published. If so, its body counts as in flight from now on."""
        if not state["kafka"].reachable or len(event.body) > self._most:
            return False
        row = parse.one(event.entity, event.body, event.tenant.currency)
        if row is None:
            return False
        event.row = row
        try:
            state["inflight"].take(event.tenant.tenant_id, len(event.body))
        except Problem:
            return False
        return True

    async def _publish(self, event: _Event, scope: Scope, send: Send) -> None:
        """Send the message, wait for its acknowledgement, and answer."""
        state, tenant_id, entity, body = scope["state"], event.tenant.tenant_id, event.entity, event.body
        key = state["idempotency_key"] = idempotency.new_key()
        state[WHOSE] = metrics.TOP.of(tenant_id)
        request_id, event_id = envelope.ids_of_one_row(self._secret, tenant_id, f"ingest/{entity.name}", key)
        headers = envelope.headers_of_one_row(
            event_id,
            entity.type,
            time.time_ns() // 1_000_000,
            request_id,
            hashlib.sha256(body).hexdigest(),
            traceparent := traces.traceparent(scope),
        )
        value = codec.frame(entity.type, tenant_id, [event.row])
        try:
            sent = state["producer"].send(self._topic, topics.partition_key(tenant_id), value, headers)
            await traces.follow(sent, traceparent, self._topic, event_id, tenant_id)
        except (Unavailable, Rejected) as exc:
            problem = await render(Request(scope), refused(exc))
            await problem(scope, _nothing, send)
            return
        finally:
            state["inflight"].give_back(tenant_id, len(body))
        one_accepted(entity.name, state[WHOSE])
        content = _encode(Answer([event_id], 1, 0, [], 0))
        answer_headers = [
            (b"idempotency-key", key.encode()),
            (b"content-length", b"%d" % len(content)),
            (b"content-type", b"application/json"),
        ]
        await send({"type": "http.response.start", "status": 202, "headers": answer_headers})
        await send({"type": "http.response.body", "body": content})


def _recognised(scope: Scope) -> _Event | None:
    """The event, not read yet, if it is a plain one of a tenant who may send as many as he likes."""
    headers: dict[bytes, bytes] = dict(reversed(scope["headers"]))  # the first of each name counts
    path: str = scope["path"]
    tenant_id, _, name = path[len(_BASE) :].partition("/ingest/")
    entity = ENTITIES.get(name.removesuffix("/"))
    if (
        entity is None
        or not path.startswith(_BASE)
        or headers.get(b"content-type") not in _JSON
        or b"idempotency-key" in headers
        or b"content-encoding" in headers
        or scope["query_string"]
    ):
        return None
    given, bearer = headers.get(b"x-api-key", b""), headers.get(b"authorization", b"")
    try:
        key = key_in(given.decode("latin-1"), bearer.decode("latin-1"))
        tenant: Tenant = scope["state"]["registry"].authenticate(tenant_id, key)
    except Problem:
        return None
    limits = tenant.limits
    free = limits.requests_per_minute == 0 and (entity.name != "products" or limits.product_events_per_minute == 0)
    return _Event(tenant, entity, headers) if free else None


async def _soon(receive: Receive) -> Message | None:
    """The first part of the body; None if it does not come soon. Many clients send it apart from the headers."""
    try:
        async with asyncio.timeout(_SOON_S):
            return await receive()
    except TimeoutError:
        return None


def _again(message: Message, receive: Receive) -> Receive:
    """Receives what was read already, and then the rest."""
    read = [message]

    async def receiving() -> Message:
        return read.pop() if read else await receive()

    return receiving


async def _nothing() -> Message:
    return {"type": "http.disconnect"}
