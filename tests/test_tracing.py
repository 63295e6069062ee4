"""One trace from a client's request to the row: in the headers, in the logs, and as spans at a collector."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from pipeline import Pipeline, eventually
from test_end_to_end import order

from deploy.broker import HOST, free_port

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SAMPLED, UNSAMPLED = f"00-{TRACE}-00f067aa0ba902b7-01", f"00-{TRACE[::-1]}-00f067aa0ba902b7-00"
ROLES = ("gateway", "streams", "sinks")


class Collector(ThreadingHTTPServer):
    """Takes OTLP over HTTP (opentelemetry.io/docs/specs/otlp), and keeps the spans by the service that sent them."""

    def __init__(self) -> None:
        super().__init__((HOST, free_port()), Taking)
        self.spans: list[tuple[str, Any]] = []


class Taking(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            named = {attribute.key: attribute.value.string_value for attribute in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.server.spans += [(named["service.name"], span) for span in scope.spans]  # type: ignore[attr-defined]
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def lines(pipeline: Pipeline, role: str, event_id: str) -> list[dict[str, Any]]:
    """What a role has logged of an event."""
    return [line for line in logged(pipeline, role) if line.get("event_id") == event_id]


def logged(pipeline: Pipeline, role: str) -> list[dict[str, Any]]:
    """All that a role has logged, whoever of it did: an object a line."""
    return [json.loads(line) for line in pipeline.log(role).splitlines()]


def test_a_sampled_trace_is_logged_by_every_process_and_another_by_none(own_pipeline: Pipeline) -> None:
    own_pipeline.settings = own_pipeline.settings_with(log_format="json")
    unreachable = f"{own_pipeline.settings.kafka_bootstrap_servers},{HOST}:{free_port()}"
    own_pipeline.settings = own_pipeline.settings_with(kafka_bootstrap_servers=unreachable)
    own_pipeline.start("streams", "sinks", "gateway")
    tenant, key = own_pipeline.tenant()
    seen = own_pipeline.post(tenant, key, "orders", order(1), traceparent=SAMPLED).json()["event_ids"][0]
    unseen = own_pipeline.post(tenant, key, "orders", order(2), traceparent=UNSAMPLED).json()["event_ids"][0]
    strange = own_pipeline.post(tenant, key, "orders", order(3), traceparent="00-nonsense").json()["event_ids"][0]
    stock = own_pipeline.http.post(
        f"/api/v1/tenants/{tenant}/stock-events",
        json={"product_id": "P", "kind": "received", "quantity": 1},
        headers={"X-API-Key": key, "traceparent": SAMPLED},
    ).json()["event_ids"][0]
    export = own_pipeline.http.post(
        f"/api/v1/tenants/{tenant}/exports",
        json={"entity": "orders", "format": "csv"},
        headers={"X-API-Key": key, "traceparent": SAMPLED},
    ).json()["export_id"]
    own_pipeline.drained()
    for role, what in (("gateway", "produce"), ("sinks", "write")):
        [line] = eventually(lambda role=role: lines(own_pipeline, role, export))
        assert (line["message"], line["trace_id"]) == (what, TRACE)
    for event_id in (seen, stock):
        for role, what in zip(ROLES, ("produce", "process", "write"), strict=True):
            [line] = eventually(lambda role=role, event_id=event_id: lines(own_pipeline, role, event_id))
            assert (line["message"], line["tenant_id"], line["trace_id"]) == (what, tenant, TRACE)
            assert line["took_ms"] > 0
            assert line.get("outcome") == {"produce": None, "process": "new", "write": "applied"}[what], line
            assert (line.get("rows"), line.get("applied")) == ((1, 1) if what == "write" else (None, None))
    upload = own_pipeline.http.post(
        f"/api/v1/tenants/{tenant}/uploads",
        json={"entity": "orders"},
        headers={"X-API-Key": key, "traceparent": SAMPLED},
    )
    assert upload.status_code == 201, upload.text
    opened = [line for line in logged(own_pipeline, "gateway") if line["message"] == "produce"][-1]["event_id"]
    for role, what in zip(ROLES, ("produce", "process", "write"), strict=True):
        [line] = eventually(lambda role=role: lines(own_pipeline, role, opened))
        assert line["message"] == what
    for role in ROLES:
        assert lines(own_pipeline, role, unseen) == lines(own_pipeline, role, strange) == []


def test_spans_of_one_request_are_one_trace(
    own_pipeline: Pipeline, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{HOST}:{collector.server_port}")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
    own_pipeline.start("streams", "sinks", "gateway")
    tenant, key = own_pipeline.tenant()
    collector.spans.clear()
    event_id = own_pipeline.post(tenant, key, "orders", order(1), traceparent=SAMPLED).json()["event_ids"][0]
    own_pipeline.drained()

    def of_trace() -> dict[str, tuple[str, Any]]:
        return {span.name: (role, span) for role, span in collector.spans if span.trace_id.hex() == TRACE}

    spans = eventually(lambda: len(found := of_trace()) == 4 and found)
    assert {name: role for name, (role, _) in spans.items()} == {
        "request": "tillstream-gateway",
        "produce": "tillstream-gateway",
        "process": "tillstream-streams",
        "write": "tillstream-sinks",
    }
    request = spans["request"][1]
    assert request.parent_span_id.hex() == SAMPLED.split("-")[2]
    for name in ("produce", "process", "write"):
        span = spans[name][1]
        assert span.parent_span_id == request.span_id
        assert request.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        said = {attribute.key: attribute.value.string_value for attribute in span.attributes}
        assert (said["tillstream.event_id"], said["tillstream.tenant_id"]) == (event_id, tenant)
    said = {attribute.key: attribute.value for attribute in request.attributes}
    assert (said["http.request.method"].string_value, said["http.response.status_code"].int_value) == ("POST", 202)
    assert said["http.route"].string_value == "ingest"
    own_pipeline.post(tenant, key, "orders", order(2))  # without a trace of its client's: it begins one
    eventually(lambda: [s for _, s in collector.spans if s.name == "write" and s.trace_id.hex() != TRACE])
