"""GET /price-alerts/stream: server-sent events (WHATWG HTML, section 9.2) or NDJSON, live, from where a client was.

An event's id is where its record lies in `prices.verdicts`, `<partition>:<offset>`. Of the alerts of one record only
the last carries it, so that who resumes in between gets all of them again: at least once, never less.
"""

import re
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response

from gateway import accept, filters
from gateway.backfill import Backfill
from gateway.filters import bad
from gateway.headers import header
from gateway.judged import Alert
from gateway.lines import Lines
from gateway.live import Live, Reader
from gateway.operation import NDJSON
from gateway.problems import Problem
from gateway.publishing import unavailable
from gateway.tenants import api_key, authenticated
from gateway.watched import Event, Wanted
from schemas import topics
from schemas.errors import Unavailable

SSE: Final = "text/event-stream"
HEARTBEAT_S = 15.0
_BEGUN_S: Final = 5.0
_RETRY: Final = b"retry: 2000\n\n"
_ID: Final = re.compile(r"([0-9]{1,6}):([0-9]{1,18})", re.ASCII)
_ENDS: Final = {
    "too_slow": "this client did not keep up; connect again with Last-Event-ID to get what it missed",
    "key_ended": "the API key does not work any more",
    "kafka_unavailable": "Kafka is away; connect again with Last-Event-ID",
    "shutting_down": "this gateway stops; connect again with Last-Event-ID",
}


class Position(Struct, tag_field="type", tag="position"):
    """Everything up to here has been sent: begin again with this as Last-Event-ID."""

    last_event_id: Annotated[str, Meta(examples=["3:1287"])]


class End(Struct, tag_field="type", tag="end"):
    """The last line, where it is the gateway that ends the stream."""

    code: Annotated[str, Meta(extra_json_schema={"enum": list(_ENDS)})]
    detail: str


AlertLine = Alert | Position | End


async def price_alerts_stream(request: Request) -> Response:
    """Watch alerts on prices as they are made.

    Server-sent events, or lines of JSON, as Accept says. With `Last-Event-ID`, first what has come since then. A client
    that does not keep up is told so in a last event, `end`, and may connect again from where it was; one that takes
    nothing at all for 90 seconds is cut off, maybe in the middle of an event. At the beginning, and every 15 seconds
    without an alert, the stream says how far it is, while Kafka is away too. Filters are those of GET /price-alerts;
    `from` and `to` choose among what comes, and do not say where to begin.
    """
    tenant_id = authenticated(request).tenant_id
    wanted = Wanted(filters.read("price_alerts", request.query_params, ()))
    media_type = accept.best(header(request, b"accept"), (SSE, NDJSON))
    if not request.state.kafka.reachable:
        raise unavailable("Kafka is away")
    live: Live = request.state.live
    partition = topics.partition_of(topics.partition_key(tenant_id), request.state.settings.partitions)
    after = _last_event_id(request, partition)
    with ExitStack() as until_ended:
        reader = live.reader(tenant_id, wanted)
        until_ended.callback(reader.close)
        backfill = None
        if after is not None:
            backfill = Backfill(live, tenant_id, wanted, partition, after + 1)
            try:
                await backfill.open()
            except Unavailable as exc:
                raise unavailable(str(exc)) from exc
            until_ended.callback(backfill.close)
        if (closing := request.scope.get("extensions", {}).get("tillstream.closing")) is not None:
            closing["call"](lambda: reader.end("shutting_down"))
        written = _written(_told(request, reader, partition, backfill), media_type)
        headers = {"X-Accel-Buffering": "no"}  # for nginx, which would collect events

        def dropped() -> bytes:
            reader.drop()
            return _bytes(_end(reader.ended), media_type)

        return Lines(200, written, headers, until_ended.pop_all().close, media_type, dropped)


def _last_event_id(request: Request, partition: int) -> int | None:
    """The offset in the header, of the tenant's partition. Raises Problem 400."""
    given = header(request, b"last-event-id").strip()
    if not given:
        return None
    found = _ID.fullmatch(given)
    if found is None or int(found[1]) != partition:
        raise bad("Last-Event-ID", f"Last-Event-ID takes the id of an event of this tenant, not {given[:40]!r}")
    return int(found[2])


async def _told(
    request: Request, reader: Reader, partition: int, backfill: Backfill | None
) -> AsyncIterator[Event | End]:
    """What has been missed, then what comes; events without alerts say how far it is."""
    upto = -1
    if backfill is not None:
        try:
            async for event in backfill.missed():
                yield event
            reader.listen()
            async for event in backfill.missed():  # what came meanwhile: from here on nothing is missing
                yield event
        except Unavailable:
            reader.end("kafka_unavailable")
        upto = backfill.position - 1
        yield _so_far(partition, upto)
    else:
        await request.state.outcomes.begun(_BEGUN_S)
        reader.listen()
        upto = await reader.position(partition)
        yield _so_far(partition, upto)  # whoever is cut off before the first alert can come back, too
    while True:
        new = await reader.next(HEARTBEAT_S)
        if reader.ended:
            yield _end(reader.ended)
            return
        if not _still_let_in(request):
            yield _end("key_ended")
            return
        if new is None:
            upto = max(upto, await reader.position(partition))
            yield _so_far(partition, upto)
        elif new.offset > upto:
            yield new
            upto = new.offset


def _so_far(partition: int, offset: int) -> Event:
    return Event(partition, offset, [], 0)


def _end(code: str) -> End:
    return End(code, _ENDS[code])


def _still_let_in(request: Request) -> bool:
    try:
        request.state.registry.authenticate(request.path_params["tenant_id"], api_key(request))
    except Problem:
        return False
    return True


async def _written(told: AsyncIterator[Event | End], media_type: str) -> AsyncIterator[bytes]:
    if media_type == SSE:
        yield _RETRY
    async for one in told:
        yield _bytes(one, media_type)


def _bytes(one: Event | End, media_type: str) -> bytes:
    return _sse(one) if media_type == SSE else _lines(one)


def _sse(one: Event | End) -> bytes:
    if isinstance(one, End):
        return b"event: end\ndata: %b\n\n" % msgspec.json.encode(one)
    place = b"id: %d:%d\n" % (one.partition, one.offset) if one.offset >= 0 else b""
    if not one.alerts:
        return b": nothing new\n%b\n" % place
    *others, last = one.alerts
    return b"".join(b"event: alert\ndata: %b\n\n" % each for each in others) + b"event: alert\n%bdata: %b\n\n" % (
        place, last,
    )  # fmt: skip


def _lines(one: Event | End) -> bytes:
    if isinstance(one, End):
        return msgspec.json.encode(one) + b"\n"
    if one.offset < 0:
        return b"\n"
    position = msgspec.json.encode(Position(f"{one.partition}:{one.offset}"))
    return b"\n".join((*one.alerts, position, b""))
