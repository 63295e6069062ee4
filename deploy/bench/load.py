"""A cheap HTTP client in a process of its own: raw sockets on uvloop, no more parsing than an answer needs.

`Client(load)` makes the bodies, `go()` sends them, `result()` says what came back. In the other process,
`python -m deploy.bench.load` reads a Load as a line of JSON, says "ready", waits for a line, and prints a Result.
"""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import cycle, islice
from typing import Any, Self
from urllib.parse import urlsplit

import msgspec
import uvloop
from msgspec import Struct, field

from deploy.bench import rows


class Load(Struct):
    """What to send: `count` rows of an entity from row `first` on, `body_rows` a body, on that many connections.

    With `seconds`, again and again until they are over. With `rate`, so many requests a second at even distances, each
    timed from when it was due; else each connection sends when it has its answer. `ahead` makes all bodies first.
    """

    url: str
    key: str = ""
    entity: str = "orders"
    first: int = 0
    count: int = 1_000
    body_rows: int = rows.MESSAGE_ROWS
    connections: int = 8
    seconds: float = 0.0
    rate: float = 0.0
    ahead: bool = True

    def requests(self) -> Iterator[bytes]:
        """The bytes of each request."""
        url = urlsplit(self.url)
        type_ = "application/json" if self.body_rows == 1 else "application/x-ndjson"
        head = f"POST {url.path} HTTP/1.1\r\nhost: {url.netloc}\r\nx-api-key: {self.key}\r\ncontent-type: {type_}\r\n"
        lines = rows.lines(self.entity, self.first, self.count)
        while body := b"".join(islice(lines, self.body_rows)):
            yield f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


class Result(Struct):
    """What came back: answers by status, each one's milliseconds in order of size, and the client's own CPU seconds."""

    seconds: float = 0.0
    cpu_s: float = 0.0
    statuses: dict[int, int] = field(default_factory=dict)
    ms: list[float] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return len(self.ms) / self.seconds

    def percentile(self, percent: float) -> float:
        """Milliseconds within which so many percent of the answers came."""
        return percentile(self.ms, percent)

    def only(self, status: int) -> Self:
        """Itself, when every answer had this status; else raises AssertionError."""
        assert self.statuses.keys() == {status}, f"expected {status} only, got {self.statuses}"
        return self


def percentile(ordered: list[float], percent: float) -> float:
    """The nearest-rank percentile of an ascending list."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


class Client:
    """The other process, from here."""

    def __init__(self, load: Load) -> None:
        """Return when the bodies are made and the connections are open."""
        command = [sys.executable, "-m", "deploy.bench.load"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._say(msgspec.json.encode(load))
        self._hear()

    def go(self) -> Self:
        """Begin."""
        self._say(b"go")
        return self

    def result(self) -> Result:
        """Wait until all is sent and answered."""
        result = msgspec.json.decode(self._hear(), type=Result)
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        return result

    def _say(self, line: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + b"\n")
        self._process.stdin.flush()

    def _hear(self) -> bytes:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the load client has ended; why is above"
        return line


def fire(load: Load) -> Result:
    """Send all of it now."""
    return Client(load).go().result()


class _Run:
    """One load under way; counts answers of all connections."""

    def __init__(self, load: Load, requests: Iterator[bytes]) -> None:
        self._load, self.requests, self.result = load, requests, Result()
        self.loop = asyncio.get_running_loop()
        self.open = 0
        self.done = self.loop.create_future()
        self._due = 0

    async def send(self, connections: "list[_Connection]") -> None:
        self.open = len(connections)
        cpu, self._started = _cpu_s(), time.perf_counter()
        for connection in connections:
            connection.next()
        await self.done
        self.result.seconds = time.perf_counter() - self._started
        self.result.cpu_s = _cpu_s() - cpu
        self.result.ms.sort()

    def due(self) -> float | None:
        """When the next request is to be sent; None when there is none."""
        now = time.perf_counter()
        at = self._started + self._due / self._load.rate if self._load.rate else now
        self._due += 1
        return None if self._load.seconds and at - self._started > self._load.seconds else at

    def answered(self, status: int, seconds: float) -> None:
        self.result.ms.append(seconds * 1000)
        self.result.statuses[status] = self.result.statuses.get(status, 0) + 1

    def closed(self) -> None:
        self.open -= 1
        if not self.open:
            self.done.set_result(None)


class _Connection(asyncio.Protocol):
    """Sends one request after another."""

    run: _Run
    _answer = b""
    _due = 0.0
    _finished = False

    def connection_made(self, transport: Any) -> None:
        self._transport: asyncio.Transport = transport

    def next(self) -> None:
        """Send the next request when it is due."""
        due = self.run.due()
        if due is None or (request := next(self.run.requests, None)) is None:
            self._finished = True
            self._transport.close()
            return
        self._due = due
        wait = due - time.perf_counter()
        if wait > 0:
            self.run.loop.call_later(wait, self._transport.write, request)
        else:
            self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        if self._answer:
            data = self._answer + data
        end = data.find(b"\r\n\r\n")
        at = data.find(b"content-length: ", 0, end)
        if end < 0 or len(data) < end + 4 + int(data[at + 16 : data.index(b"\r", at)]):
            self._answer = data
            return
        self._answer = b""
        self.run.answered(int(data[9:12]), time.perf_counter() - self._due)
        self.next()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._finished:
            self.run.answered(0, 0.0)  # no answer; whoever asked for another status hears of it
        self.run.closed()


def _cpu_s() -> float:
    return sum(os.times()[:2])


async def _main() -> None:
    load = msgspec.json.decode(sys.stdin.buffer.readline(), type=Load)
    requests = load.requests()
    if load.ahead:
        requests = iter(list(requests))
    run = _Run(load, cycle(requests) if load.seconds else requests)
    host, _, port = urlsplit(load.url).netloc.partition(":")
    connections = []
    for _ in range(load.connections):
        _, connection = await run.loop.create_connection(_Connection, host, int(port))
        connection.run = run
        connections.append(connection)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    await run.send(connections)
    sys.stdout.buffer.write(msgspec.json.encode(run.result) + b"\n")


if __name__ == "__main__":
    uvloop.run(_main())
