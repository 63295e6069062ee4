"""What strangers send does not reach the logs as lines of theirs, and what is secret reaches them not at all."""

import json
import re
import socket
import time

import confluent_kafka
from pipeline import Pipeline, eventually
from test_end_to_end import order

from deploy.broker import HOST
from schemas import topics

FORGED = "2026-01-01 00:00:00,000 CRITICAL forged: all is lost"
ROLES = ("gateway", "streams", "sinks")


def test_nobody_writes_lines_into_our_logs(own_pipeline: Pipeline) -> None:
    own_pipeline.start("streams", "sinks", "gateway")
    tenant, key = own_pipeline.tenant()
    nasty = f"x\n{FORGED}\r\n\x1b[2J"
    own_pipeline.http.get(f"/api/v1/tenants/{tenant}/orders/%0A{FORGED}", headers={"X-API-Key": key})
    own_pipeline.post(tenant, key, "orders", json.dumps({"external_order_id": nasty}).encode(), Idempotency_Key="k")
    producer = confluent_kafka.Producer(own_pipeline.settings.kafka)
    headers: list[tuple[str, str | bytes | None]] = [
        ("ce_type", f"tillstream.orders.v1\n{FORGED}"),
        ("ce_id", nasty),
        (f"name\n{FORGED}", b"x"),
    ]
    named = own_pipeline.settings.named
    for topic, partition_key in ((topics.INGESTION, tenant.encode()), (topics.TENANTS, nasty.encode())):
        producer.produce(named(topic), b"\x00\x01" + nasty.encode(), partition_key, headers=headers)
    producer.flush(10)
    own_pipeline.post(tenant, key, "orders", order(1))
    own_pipeline.drained()
    for role in ROLES:
        log = own_pipeline.log(role)
        assert not re.search(f"^{re.escape(FORGED)}", log, re.MULTILINE), role
        assert "\x1b[2J" not in log
    assert "tenants@" in own_pipeline.log("gateway"), "what it could not read is logged"


def test_no_secret_is_in_any_log_error_or_document(own_pipeline: Pipeline) -> None:
    own_pipeline.settings = own_pipeline.settings_with(log_level="DEBUG")
    own_pipeline.start("streams", "sinks", "gateway")
    tenant, key = own_pipeline.tenant()
    settings = own_pipeline.settings
    admin = {"Authorization": f"Bearer {settings.admin_token}"}
    said = [
        own_pipeline.post(tenant, key, "orders", order(1)).text,
        own_pipeline.post(tenant, key + "x", "orders", order(1)).text,
        own_pipeline.http.get("/api/v1/admin/tenants", headers={"Authorization": "Bearer wrong"}).text,
        own_pipeline.http.get("/api/v1/admin/tenants", headers=admin).text,
        own_pipeline.http.get(f"/api/v1/admin/tenants/{tenant}", headers=admin).text,
        own_pipeline.http.get("/metrics").text,
        own_pipeline.http.get("/readyz").text,
        own_pipeline.http.get("/api/schema/openapi.json").text,
    ]
    own_pipeline.drained()
    for command in ("audit", "tenants list", "doctor", "dlq list"):
        done = own_pipeline.cli(*command.split(), "--json")
        said += [done.stdout, done.stderr]
    wrong = own_pipeline.settings
    own_pipeline.settings = own_pipeline.settings_with(database_url=wrong.database_url.replace("@", "x@"))
    said += [(done := own_pipeline.cli("audit")).stdout, done.stderr]
    own_pipeline.settings = wrong
    said += [own_pipeline.log(role) for role in ROLES]
    passwords = {url.split("@")[0].rpartition(":")[2] for url in (settings.database_url, settings.reader_database_url)}
    for secret in {key, settings.secret, settings.admin_token, *passwords}:
        assert len(secret) > 5
        for text in said:
            assert secret not in text


def test_a_client_that_sends_its_body_drop_by_drop_is_cut_off(own_pipeline: Pipeline) -> None:
    own_pipeline.start("gateway", patch="from gateway import bodies; bodies._BODY_S = 1.0")
    tenant, key = own_pipeline.tenant()
    head = (
        f"POST /api/v1/tenants/{tenant}/ingest/orders HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\n"
        "Content-Type: application/x-ndjson\r\nContent-Length: 1000\r\n\r\n"
    )
    with socket.create_connection((HOST, own_pipeline.settings.gateway_port), timeout=20) as client:
        client.sendall(head.encode())
        began = time.monotonic()
        answer = b""
        while not answer and time.monotonic() - began < 15:
            client.sendall(b"{")
            client.settimeout(0.2)
            try:
                answer = client.recv(65_536)
            except TimeoutError:
                continue
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"body_too_slow" in answer
    assert eventually(lambda: own_pipeline.http.get("/metrics").text.count("tillstream_inflight_bytes 0.0"))
