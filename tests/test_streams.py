"""Streams: any number of rows in little memory, and an end that is never mistaken for the whole."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import httpx
import psutil
import psycopg
import pytest
from pipeline import Pipeline, eventually
from shop import problem

from deploy.broker import HOST

NDJSON, CSV = "application/x-ndjson", "text/csv"
LIVE = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'COPY%%'"
STALL_SOON = "import gateway.stream as stream; stream.STALL_S = 6.0"
_CUSTOMERS = (
    "INSERT INTO customers (tenant_id, customer_id, id, name, version_at, version_offset, version_row)"
    " SELECT %s, lpad(n::text, 9, '0'), '00000000-0000-0000-0000-000000000000', %s, '2026-01-01Z', 1, 1"
    " FROM generate_series(1, %s) n"
)
BIG = 100_000
NAME = "name " * 20
"""Rows with such names are more than the buffers between the gateway and a client hold."""


def fill(pipeline: Pipeline, tenant: str, name: str | None, rows: int) -> None:
    """Make so many customers."""
    with psycopg.connect(pipeline.settings.database_url) as db:
        db.execute(_CUSTOMERS, [tenant, name, rows])


@pytest.fixture(scope="module")
def streaming(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A gateway that drops clients after three seconds of stalling."""
    with Pipeline(tmp_path_factory.mktemp("streams")) as pipeline:
        pipeline.start("gateway", patch=STALL_SOON)
        yield pipeline


@pytest.fixture(scope="module")
def shops(streaming: Pipeline) -> list[tuple[str, str]]:
    """Three tenants with many customers."""
    tenants = [streaming.tenant() for _ in range(3)]
    for tenant, _ in tenants:
        fill(streaming, tenant, NAME, BIG)
    return tenants


@pytest.fixture(autouse=True)
def nothing_is_left(streaming: Pipeline) -> Iterator[None]:
    yield
    eventually(lambda: live(streaming) == (0, []), within=10)


def live(pipeline: Pipeline) -> tuple[int, list[Any]]:
    """Streams that the gateway counts, and queries that PostgreSQL runs for them."""
    [line] = [text for text in pipeline.http.get("/metrics").text.splitlines() if text.startswith("tillstream_read_s")]
    return int(float(line.split()[1])), pipeline.sql(LIVE)


def begin(pipeline: Pipeline, shop: tuple[str, str], accept: str = NDJSON) -> socket.socket:
    """A client that has sent its request and reads nothing yet; it offers little room to send into."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect((HOST, pipeline.settings.gateway_port))
    path = f"/api/v1/tenants/{shop[0]}/customers"
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nX-API-Key: {shop[1]}\r\nAccept: {accept}\r\n\r\n".encode())
    return client


def rest(client: socket.socket) -> bytes:
    """All that still comes before the connection ends."""
    client.settimeout(20)
    received = b""
    try:
        while data := client.recv(1_000_000):
            received += data
    except ConnectionResetError:
        pass
    return received


def test_a_million_rows_take_little_memory(streaming: Pipeline) -> None:
    tenant, key = streaming.tenant()
    fill(streaming, tenant, None, 1_000_000)
    gateway = psutil.Process(streaming.children["gateway"].pid)
    peak, done = [0], threading.Event()

    def sample() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], gateway.memory_info().rss)

    sampling = threading.Thread(target=sample)
    sampling.start()
    url, headers = f"/api/v1/tenants/{tenant}/customers", {"X-API-Key": key, "Accept": NDJSON}
    lines, last = 0, b""
    with streaming.http.stream("GET", url, headers=headers) as answer:
        for chunk in answer.iter_raw():
            lines += chunk.count(b"\n")
            last = (last + chunk)[-1_000:]
    done.set()
    sampling.join()
    assert lines == 1_000_000
    assert json.loads(last.splitlines()[-1])["customer_id"] == "001000000"
    assert peak[0] < 100_000_000


@pytest.mark.parametrize("accept", [NDJSON, CSV])
def test_a_client_that_reads_late_gets_all(streaming: Pipeline, shops: list[tuple[str, str]], accept: str) -> None:
    with closing(begin(streaming, shops[0], accept)) as client:
        time.sleep(0.5)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_000_000)
        received = b""
        while not received.endswith(b"\r\n0\r\n\r\n"):
            data = client.recv(1_000_000)
            assert data
            received += data
        assert received.count(NAME.encode()) > BIG * 0.98  # a few lie over the border of two chunks


def test_a_client_that_stalls_is_dropped(streaming: Pipeline, shops: list[tuple[str, str]]) -> None:
    with closing(begin(streaming, shops[0])) as client:
        eventually(lambda: live(streaming)[0] == 1, within=10)
        eventually(lambda: live(streaming) == (0, []), within=10)
        received = rest(client)
        assert received.startswith(b"HTTP/1.1 200 OK")
        assert not received.endswith(b"0\r\n\r\n")
    assert "its client took nothing for 6 s" in streaming.log("gateway")


def test_a_client_that_goes_away_ends_its_query(streaming: Pipeline, shops: list[tuple[str, str]]) -> None:
    with closing(begin(streaming, shops[0])) as client:
        client.recv(1000)
        assert live(streaming)[0] == 1
    eventually(lambda: live(streaming) == (0, []), within=5)


def test_a_client_that_goes_away_before_the_first_row_ends_its_query(
    streaming: Pipeline, shops: list[tuple[str, str]]
) -> None:
    with psycopg.connect(streaming.settings.database_url) as db:
        db.execute("LOCK TABLE customers IN ACCESS EXCLUSIVE MODE")
        with closing(begin(streaming, shops[0])):
            eventually(lambda: len(live(streaming)[1]) == 1, within=10)
        eventually(lambda: live(streaming) == (0, []), within=5)


def test_an_error_in_the_middle_does_not_look_complete(streaming: Pipeline, shops: list[tuple[str, str]]) -> None:
    with closing(begin(streaming, shops[0])) as client:
        client.recv(1000)
        assert streaming.sql(LIVE.replace("SELECT pid", "SELECT pg_terminate_backend(pid)")) == [(True,)]
        assert not rest(client).endswith(b"0\r\n\r\n")
    headers = {"X-API-Key": shops[0][1], "Accept": CSV}
    with streaming.http.stream("GET", f"/api/v1/tenants/{shops[0][0]}/customers", headers=headers) as answer:
        streaming.sql(LIVE.replace("SELECT pid", "SELECT pg_terminate_backend(pid)"))
        with pytest.raises(httpx.TransportError):
            answer.read()


def test_streams_are_bounded_and_pages_are_served_beside_them(
    streaming: Pipeline, shops: list[tuple[str, str]]
) -> None:
    def ask(shop: tuple[str, str], accept: str) -> httpx.Response:
        headers = {"X-API-Key": shop[1], "Accept": accept}
        return streaming.http.get(f"/api/v1/tenants/{shop[0]}/customers?limit=2", headers=headers)

    with ExitStack() as held:
        for n in range(3):
            held.enter_context(closing(begin(streaming, shops[0])))
            eventually(lambda n=n: live(streaming)[0] == n + 1, within=5)  # type: ignore[misc]
        refused = ask(shops[0], CSV)
        problem(refused, 503, "too_many_streams")
        assert refused.headers["retry-after"] == "5"
        assert ask(shops[1], CSV).status_code == 200
        for shop in (shops[1], shops[1], shops[1], shops[2], shops[2]):
            held.enter_context(closing(begin(streaming, shop)))
        eventually(lambda: live(streaming)[0] == 8, within=5)
        problem(ask(shops[2], CSV), 503, "too_many_streams")
        for shop in shops:
            assert ask(shop, "application/json").status_code == 200
    eventually(lambda: live(streaming)[0] == 0, within=10)
    assert ask(shops[2], CSV).status_code == 200
