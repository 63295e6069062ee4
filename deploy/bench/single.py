"""Single JSON events, each acknowledged by Kafka before its answer, against a server that says hello."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Final

import psutil

from deploy.bench import figures
from deploy.bench.figures import Figure
from deploy.bench.installation import TENANT, Installation, Say, spent
from deploy.bench.load import Client, Load, Result, fire
from deploy.broker import HOST, free_port
from deploy.stack import Stack, wait_until
from deploy.supervisor import Child

TARGET: Final = 0.6
_ROUNDS: Final = 3
_WINDOW_S: Final = 5.0
_CONNECTIONS: Final = 32


def run(stack: Stack, count: int, say: Say) -> Iterator[Figure]:
    """One JSON event a request on 32 connections, acknowledged by Kafka; in turn with hello, medians of three."""
    del count
    say("single events")
    with Installation(stack, "single") as shop, _hello(stack) as (hello_url, hello_process):
        key = shop.tenant()
        shop.start("gateway")
        events_url = f"{shop.gateway_url}/api/v1/tenants/{TENANT}/ingest/orders"
        hello, events = (
            Load(url, key, body_rows=1, connections=_CONNECTIONS, seconds=_WINDOW_S) for url in (hello_url, events_url)
        )
        fire(events).only(202)
        hellos: list[Result] = []
        sent: list[Result] = []
        costs = []
        for _ in range(_ROUNDS):
            idle = _cpu_s(hello_process)
            hellos.append(fire(hello).only(200))
            cost = {"hello": (_cpu_s(hello_process) - idle) / len(hellos[-1].ms)}
            client, before = Client(events), shop.cpu_seconds()
            sent.append(client.go().result().only(202))
            used = spent(before, shop.cpu_seconds()) | {"client": sent[-1].cpu_s}
            costs.append(cost | {name: seconds / len(sent[-1].ms) for name, seconds in used.items()})
    limit, speed = (median(result.per_second for result in results) for results in (hellos, sent))
    yield figures.limit("Starlette hello", limit, "requests/s")
    yield figures.share("events acknowledged", speed, limit, TARGET, "requests/s")
    for name, results in (("hello", hellos), ("events", sent)):
        p50, p99 = (median(result.percentile(percent) for result in results) for percent in (50, 99))
        yield Figure(f"{name}, p50 and p99", f"{p50:.1f} and {p99:.1f} ms")
    yield from figures.cpu({name: median(cost[name] for cost in costs) for name in costs[0]}, 1, "request")


@contextmanager
def _hello(stack: Stack) -> Iterator[tuple[str, psutil.Process]]:
    port = free_port()
    command = [sys.executable, "-m", "deploy.bench.hello", str(port)]
    child = Child("hello", lambda: command, stack.data_dir / "logs" / "hello.log")
    child.start()
    try:
        url = f"http://{HOST}:{port}/"
        wait_until(child, url, 30)
        yield url, psutil.Process(child.pid)
    finally:
        child.stop()


def _cpu_s(process: psutil.Process) -> float:
    return float(sum(process.cpu_times()[:2]))
