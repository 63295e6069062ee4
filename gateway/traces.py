"""The trace of a request, and what its messages leave of it."""

import asyncio
import time
from functools import partial

from starlette.types import Scope

from schemas import tracing

_STATE = "traceparent"


def begun(scope: Scope) -> tracing.Request | None:
    """The span of a request that begins, where spans are sent."""
    if not tracing.sends_spans():
        return None
    span = tracing.Request(_given(scope))
    scope["state"][_STATE] = span.traceparent
    return span


def traceparent(scope: Scope) -> bytes | None:
    """What the messages of a request carry: its own span, or what its client sent."""
    own: bytes | None = scope["state"].get(_STATE)
    return own or _given(scope)


def _given(scope: Scope) -> bytes | None:
    for name, value in scope["headers"]:
        if name == b"traceparent":
            return tracing.traceparent_of(value)
    return None


def follow(
    sent: "asyncio.Future[int]", traceparent: bytes | None, topic: str, event_id: str, tenant_id: str
) -> "asyncio.Future[int]":
    """The same future; where the trace is sampled, its acknowledgement is logged."""
    if traceparent is not None and tracing.is_sampled(traceparent):
        event = tracing.Event(traceparent, topic, event_id, tenant_id)
        sent.add_done_callback(partial(_acknowledged, time.time_ns(), event))
    return sent


def _acknowledged(began_ns: int, event: tracing.Event, sent: "asyncio.Future[int]") -> None:
    if not sent.cancelled() and sent.exception() is None:
        tracing.done("produce", began_ns, event)
