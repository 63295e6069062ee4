"""Alerts on prices as they are made: who watches, from where, and what becomes of who does not keep up."""

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import dropwhile
from typing import Any

import httpx
import psutil
import pytest
from gateways import ADMIN
from pipeline import Pipeline, eventually
from shop import problem
from test_price_http import NDJSON, Trader, to

SSE = {"Accept": "text/event-stream"}
Told = tuple[str, str, dict[str, Any]]
"""Name, id and data of an event."""


@pytest.fixture
def trader(pipeline: Pipeline) -> Trader:
    return Trader(pipeline)


@contextmanager
def watching(trader: Trader, Last_Event_ID: str = "", **query: Any) -> Iterator[Iterator[Told]]:
    """The events of a stream that is open, as they come; of one that begins now, from its first alert on."""
    named = trader.headers | SSE | ({"Last-Event-ID": Last_Event_ID} if Last_Event_ID else {})
    url = trader.url("price-alerts/stream")
    with trader.pipeline.http.stream("GET", url, headers=named, params=query) as answer:
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        lines = answer.iter_lines()
        assert next(lines) == "retry: 2000"
        events = told(lines)
        yield events if Last_Event_ID else dropwhile(lambda event: not event[0], events)


def told(lines: Iterator[str]) -> Iterator[Told]:
    """The fields of events; comments are left out, an id without data is an event without a name."""
    found: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        if name:
            found[name] = value.strip()
        elif not line and (found.keys() & {"id", "event"}):
            yield found.get("event", ""), found.get("id", ""), json.loads(found.get("data", "{}"))
            found = {}


def missed(trader: Trader, after: str, upto: str, **query: Any) -> list[str]:
    """The products of the alerts that come again, from one position to another."""
    found = []
    with watching(trader, after, **query) as stream:
        for name, id_, data in stream:
            if name:
                found.append(data["product_id"])
            if id_ and int(id_.partition(":")[2]) >= int(upto.partition(":")[2]):
                return found
    raise AssertionError("the stream ended")


def slip(trader: Trader, product: str, **more: Any) -> None:
    """A price, and one with a slipped decimal point."""
    trader.judged(to(10, product), to(100, product, **more))


def test_alerts_come_as_they_are_made_and_again_from_where_a_client_was(trader: Trader) -> None:
    with watching(trader) as stream:
        slip(trader, "P-1", metadata={"by": "x"}, source="repricer")
        name, first, alert = next(stream)
    assert name == "alert"
    listed = trader.alerts(1)[0]
    assert (listed.pop("decision"), listed.pop("superseded_by")) == (None, None)
    assert alert == listed | {"type": "alert"}
    for product in ("P-2", "P-3"):
        slip(trader, product)
    trader.judged(to(10, "Q-1"), to(10, "Q-2"), to(100, "Q-1"), to(100, "Q-2"))
    with watching(trader, Last_Event_ID=first) as stream:
        missed = [next(stream) for _ in range(4)]
        name, caught_up, _ = next(stream)
        assert (name, caught_up.partition(":")[0]) == ("", first.partition(":")[0])
        slip(trader, "P-4")
        _, last, live = next(stream)
    assert [data["product_id"] for _, _, data in missed] == ["P-2", "P-3", "Q-1", "Q-2"]
    assert [bool(id_) for _, id_, _ in missed] == [True, True, False, True]  # only the last of a record has its id
    assert live["product_id"] == "P-4"
    with watching(trader, Last_Event_ID=last) as stream:
        assert next(stream)[0] == ""


def test_lines_say_the_same(trader: Trader) -> None:
    slip(trader, "P-0")  # in a log without a record there is no position
    headers = trader.headers | NDJSON
    with trader.pipeline.http.stream("GET", trader.url("price-alerts/stream"), headers=headers) as answer:
        assert answer.headers["content-type"] == "application/x-ndjson"
        lines = answer.iter_lines()
        begins = json.loads(next(lines))
        slip(trader, "P-1")
        alert, position = json.loads(next(lines)), json.loads(next(lines))
    assert (begins["type"], position["type"]) == ("position", "position")
    assert (alert["type"], alert["product_id"]) == ("alert", "P-1")
    slip(trader, "P-2")
    headers |= {"Last-Event-ID": position["last_event_id"]}
    with trader.pipeline.http.stream("GET", trader.url("price-alerts/stream"), headers=headers) as answer:
        assert json.loads(next(answer.iter_lines()))["product_id"] == "P-2"


def test_a_stream_is_filtered_as_the_history_is_live_and_from_where_a_client_was(trader: Trader) -> None:
    with watching(trader) as stream:
        slip(trader, "P-0")
        _, first, alert = next(stream)
    [score] = [found["score"] for found in alert["findings"]]
    wanted: list[dict[str, Any]] = [
        {"product_id": "P-2"}, {"name": "decimal_shift,jump", "status": "anomaly"}, {"status": "rejected,held"},
        {"name": "non_positive"}, {"min_score": score, "to": "2199-01-01"}, {"min_score": 100, "status": "anomaly"},
        {"from": "2199-01-01"}, {"product_id": "P-3", "status": "rejected"},
    ]  # fmt: skip
    with ExitStack() as until_seen:
        live = [until_seen.enter_context(watching(trader, first, **query)) for query in wanted]
        assert [next(stream)[0] for stream in live] == [""] * len(wanted)  # each is at the end
        slip(trader, "P-1")
        trader.judged(to(10, "P-2"), to(10, "P-3"), to(10, "P-4"))
        trader.judged(to(100, "P-2"), to(0, "P-3"), to(100, "P-4"))  # of one record some are wanted, some not
        trader.alerts(5)
        expected = []
        for query, stream in zip(wanted, live, strict=True):
            listed = [
                row for row in reversed(trader.get("price-alerts", **query)["data"]) if row["product_id"] != "P-0"
            ]
            expected.append([row["product_id"] for row in listed])
            seen = [next(stream) for _ in listed]
            assert [data["product_id"] for _, _, data in seen] == expected[-1], query
            assert not seen or seen[-1][1], query  # whichever is the last of its record says where it lies
    assert expected == [
        ["P-2"], ["P-1", "P-2", "P-4"], ["P-3"], ["P-3"], ["P-1", "P-2", "P-3", "P-4"], expected[5], [], ["P-3"],
    ]  # fmt: skip
    with watching(trader) as stream:
        slip(trader, "P-5")
        _, last, _ = next(stream)
    for query, products in zip(wanted, expected, strict=True):
        assert missed(trader, first, last, **query) == products + ["P-5"] * ("P-1" in products), query
    for query in ({"status": "accepted"}, {"min_score": 101}, {"min_score": "x"}, {"limit": 1}):
        url = trader.url("price-alerts/stream")
        problem(trader.pipeline.http.get(url, params=query, headers=trader.headers), 400, "bad_parameter")


def test_a_position_is_one_of_the_tenants_partition(trader: Trader) -> None:
    with watching(trader) as stream:
        slip(trader, "P-1")
        _, id_, _ = next(stream)
    partition = int(id_.partition(":")[0])
    for wrong in ("x", f"{partition + 1}:0", f"{partition}:{10**17}", f"{partition}:-1", f"{partition}:٣".encode()):
        headers = trader.headers | {"Last-Event-ID": wrong}
        answer = trader.pipeline.http.get(trader.url("price-alerts/stream"), headers=headers)
        assert problem(answer, 400, "bad_parameter")["parameter"] == "Last-Event-ID"
    problem(trader.request("GET", "price-alerts/stream?since=1"), 400, "bad_parameter")
    problem(trader.request("GET", "price-alerts/stream", Accept="text/csv"), 406, "not_acceptable")


def test_nobody_watches_another_tenant(trader: Trader, pipeline: Pipeline) -> None:
    others = [Trader(pipeline) for _ in range(8)]  # on four partitions, so that some share the tenant's
    with watching(trader) as stream:
        for other in others:
            slip(other, "secret")
        slip(trader, "mine")
        assert next(stream)[2]["product_id"] == "mine"
    with watching(trader) as stream:
        slip(trader, "mine, too")
        _, id_, _ = next(stream)
    for other in others:
        slip(other, "secret")
    slip(trader, "mine again")
    with watching(trader, Last_Event_ID=id_) as stream:
        assert next(stream)[2]["product_id"] == "mine again"


def test_a_key_that_ends_ends_its_streams(trader: Trader, pipeline: Pipeline) -> None:
    admin = {"Authorization": f"Bearer {pipeline.settings.admin_token}"}
    url = f"{ADMIN}/{trader.tenant}"
    [old] = pipeline.http.get(url, headers=admin).json()["keys"]
    with watching(trader) as stream:
        made = pipeline.http.post(f"{url}/keys", json={}, headers=admin).json()
        pipeline.http.delete(f"{url}/keys/{old['key_id']}", headers=admin).raise_for_status()
        trader.headers = {"X-API-Key": made["api_key"]}
        slip(trader, "P-1")
        name, _, said = next(stream)
        assert (name, said["code"]) == ("end", "key_ended")
        assert list(stream) == []


class Sleeper:
    """A client that opens a stream and takes nothing, until it is asked to."""

    def __init__(self, trader: Trader) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        self._socket.settimeout(30)
        self._socket.connect(("127.0.0.1", trader.pipeline.settings.gateway_port))
        lines = (
            f"GET {trader.url('price-alerts/stream')} HTTP/1.1",
            "Host: x",
            "Connection: close",
            f"X-API-Key: {trader.key}",
            "",
            "",
        )
        self._socket.sendall("\r\n".join(lines).encode())
        assert b"retry" in self._socket.recv(4_096)

    def wake(self) -> bytes:
        """All that is left of the stream."""
        with self._socket:
            return b"".join(iter(lambda: self._socket.recv(1 << 20), b""))


def test_who_does_not_keep_up_is_told_so_and_slows_nobody(trader: Trader) -> None:
    products = [f"P-{n}" for n in range(400)]
    trader.judged(*[to(10, product) for product in products])
    sleeper = Sleeper(trader)
    with watching(trader) as stream:
        received: list[Told] = []
        for round_ in range(1, 13):  # 20 MB of alerts: more than a kernel takes
            started = time.monotonic()
            price, metadata = 10 if round_ % 2 == 0 else 1_000, {"x": "y" * 9_000}
            assert trader.bulk(*[to(price, product, metadata=metadata) for product in products]).status_code == 202
            if round_ % 2:
                received += [next(stream) for _ in products]
                assert time.monotonic() - started < 10
    assert len(received) == 2_400
    text = sleeper.wake()
    assert text.count(b"event: alert") < 2_400
    end = text[text.rindex(b"event: end") :]
    assert b'"code":"too_slow"' in end
    assert b"\r\n0\r\n\r\n" in text[-10:]
    last = text[: text.rindex(b"event: end")].rindex(b"\nid: ")
    id_ = text[last:].split(b"\n", 2)[1].removeprefix(b"id: ").decode()
    with watching(trader, Last_Event_ID=id_) as stream:  # and gets the others now
        seen = {data["offset"] for _, _, data in received}
        missed = [next(stream) for _ in range(2_400 - text.count(b"event: alert"))]
        assert {data["offset"] for _, _, data in missed} <= seen


def test_five_hundred_watch_at_once(trader: Trader, pipeline: Pipeline) -> None:
    gateway = pipeline.children["gateway"].process
    assert gateway is not None
    memory = psutil.Process(gateway.pid)
    before = memory.memory_info().rss

    async def watch() -> list[float]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=pipeline.http.base_url, limits=limits, timeout=60) as client:
            opened, everyone = 0, asyncio.Event()

            async def one() -> float:
                nonlocal opened
                headers = trader.headers | SSE
                async with client.stream("GET", trader.url("price-alerts/stream"), headers=headers) as answer:
                    assert answer.status_code == 200
                    async for text in answer.aiter_text():
                        if "retry" in text:
                            opened += 1
                            if opened == 500:
                                everyone.set()
                        if "event: alert" in text:
                            return time.monotonic()
                raise AssertionError("the stream ended")

            readers = [asyncio.create_task(one()) for _ in range(500)]
            await asyncio.wait_for(everyone.wait(), 60)
            assert await asyncio.to_thread(streams, pipeline) >= 500
            started = time.monotonic()
            await asyncio.to_thread(slip, trader, "P-1")
            return [at - started for at in await asyncio.gather(*readers)]

    took = asyncio.run(watch())
    assert len(took) == 500
    assert max(took) < 10
    assert memory.memory_info().rss - before < 150_000_000
    eventually(lambda: streams(pipeline) == 0)


def streams(pipeline: Pipeline) -> float:
    text = pipeline.http.get("/metrics").text
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith("tillstream_alert_streams "))


def test_a_gateway_that_stops_says_so(own_pipeline: Pipeline) -> None:
    own_pipeline.start("gateway", restarted=False)
    trader = Trader(own_pipeline)
    with watching(trader) as stream:
        started = time.monotonic()
        own_pipeline.stop("gateway")
        assert time.monotonic() - started < 6
        name, _, said = next(stream)
        assert (name, said["code"]) == ("end", "shutting_down")
