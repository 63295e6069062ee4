"""What becomes of one event, from HTTP to the row: W3C Trace Context in the headers, lines in the logs, spans.

The trace that a client's `traceparent` names (https://www.w3.org/TR/trace-context/) goes with the rows through Kafka.
Where it is sampled, each process logs a line an event with its id and tenant. Where OpenTelemetry is installed
(`pip install 'tillstream[tracing]'`) and OTEL_EXPORTER_OTLP_ENDPOINT says where to, each also sends a span: `request`
and `produce` of the gateway, `process` of the streams, `write` of the sinks; then requests without a trace begin one,
as OTEL_TRACES_SAMPLER says.
"""

import logging
import os
import re
import time
from typing import Any, Final

from msgspec import Struct

from schemas.envelope import Headers, Position, tenant_text
from schemas.errors import Misconfigured

_TRACEPARENT: Final = re.compile(
    b"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?"  # a later version may say more
)
_KNOWN: Final = len("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_events: Final = logging.getLogger("tillstream.events")
_tracer: Any = None


def setup(role: str) -> None:
    """Send spans of this process, where the environment says where to. Raises Misconfigured where nobody can."""
    global _tracer
    if not any(os.environ.get(name) for name in _ENDPOINTS):
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as exc:
        raise Misconfigured(f"{_ENDPOINTS[0]} is set, but: {exc}. pip install 'tillstream[tracing]'") from exc
    provider = TracerProvider(resource=Resource.create({"service.name": f"tillstream-{role}"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _tracer = provider.get_tracer("tillstream")


def traceparent_of(raw: bytes | None) -> bytes | None:
    """A header's value, where it is one; of a later version what we know of it, as version 00 (Trace Context 4.3)."""
    raw = raw and raw.strip(b" \t")  # no part of a field's value (RFC 9110, section 5.5)
    if raw is None or not _TRACEPARENT.fullmatch(raw) or (raw.startswith(b"00") and len(raw) != _KNOWN):
        return None
    return b"00" + raw[2:_KNOWN]


class Event(Struct, frozen=True):
    """What an event of a sampled trace is known by."""

    traceparent: bytes
    topic: str
    event_id: str
    tenant_id: str


class Request:
    """The span of a request; `traceparent` names it for what is caused by it."""

    def __init__(self, given: bytes | None) -> None:
        """`given` is the client's traceparent; `sends_spans` must be true."""
        self._span = _tracer.start_span("request", context=_context(given), kind=_kind("SERVER"))
        context = self._span.get_span_context()
        flags = int(context.trace_flags)
        self.traceparent = b"00-%032x-%016x-%02x" % (context.trace_id, context.span_id, flags)

    def end(self, method: str, route: str, status: int) -> None:
        """It has been answered. Names are those of OpenTelemetry's semantic conventions for HTTP servers."""
        from opentelemetry.trace import StatusCode

        self._span.set_attributes(
            {"http.request.method": method, "http.route": route, "http.response.status_code": status}
        )
        if status >= 500:
            self._span.set_status(StatusCode.ERROR)
        self._span.end()


def sends_spans() -> bool:
    """Whether this process does."""
    return _tracer is not None


def is_sampled(traceparent: bytes | None) -> bool:
    """Whether somebody looks at this trace."""
    return traceparent is not None and int(traceparent[-2:], 16) & 1 == 1


def event_of(headers: Headers | None, at: Position, key: bytes | None) -> Event | None:
    """The event that a message is about, where its trace is sampled."""
    for name, value in headers or ():
        if name == "traceparent" and is_sampled(traceparent_of(value)):
            assert value is not None
            event_id = dict(headers or ()).get("ce_id") or b""
            return Event(value, at.topic, event_id.decode(errors="replace") or at.event_id(), tenant_text(key))
    return None


def done(what: str, began_ns: int, event: Event, **outcome: str | int) -> None:
    """Log that something was done with an event, and send its span, from `began_ns` (Unix time) until now.

    `outcome` says what became of it, and of its rows.
    """
    now_ns = time.time_ns()
    said: dict[str, Any] = {"event_id": event.event_id, "tenant_id": event.tenant_id, "topic": event.topic, **outcome}
    took_ms = round((now_ns - began_ns) / 1e6, 3)
    _events.info(what, extra={**said, "trace_id": event.traceparent[3:35].decode(), "took_ms": took_ms})
    if _tracer is not None:
        kind = _kind("PRODUCER" if what == "produce" else "CONSUMER")
        attributes = {f"tillstream.{name}": value for name, value in said.items()}
        attributes |= {"messaging.system": "kafka", "messaging.destination.name": event.topic}
        span = _tracer.start_span(what, _context(event.traceparent), kind, attributes, start_time=began_ns)
        span.end(now_ns)


def _context(traceparent: bytes | None) -> Any:
    from opentelemetry import trace

    if traceparent is None:
        return None
    trace_id, span_id, flags = int(traceparent[3:35], 16), int(traceparent[36:52], 16), int(traceparent[53:55], 16)
    parent = trace.SpanContext(trace_id, span_id, is_remote=True, trace_flags=trace.TraceFlags(flags))
    return trace.set_span_in_context(trace.NonRecordingSpan(parent))


def _kind(name: str) -> Any:
    from opentelemetry import trace

    return trace.SpanKind[name]
