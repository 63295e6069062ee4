"""Callers of price events over HTTP who wait for the verdict, at a steady pace, each timed from when it was due."""

import asyncio
import time
from urllib.parse import urlsplit

import msgspec
import uvloop

_Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def call(url: str, keys: dict[str, str], numbers: range, per_second: int) -> list[float]:
    """Send a change a number, of the tenants in `keys` in turn; milliseconds until each verdict, in order of size.

    Raises AssertionError for an answer that is no verdict.
    """
    return sorted(uvloop.run(_call(url, list(keys.items()), numbers, per_second)))


async def _call(url: str, keys: list[tuple[str, str]], numbers: range, per_second: int) -> list[float]:
    idle: list[_Connection] = []
    tasks, started = [], time.perf_counter()
    for place, n in enumerate(numbers):
        due = started + place / per_second
        await asyncio.sleep(due - time.perf_counter())
        tasks.append(asyncio.create_task(_one(url, *keys[n % len(keys)], n, due, idle)))
    late = await asyncio.gather(*tasks)
    for _, writer in idle:
        writer.close()
    return [seconds * 1_000 for seconds in late]


async def _one(url: str, tenant: str, key: str, n: int, due: float, idle: list[_Connection]) -> float:
    place = urlsplit(url)
    reader, writer = idle.pop() if idle else await asyncio.open_connection(place.hostname, place.port)
    body = msgspec.json.encode({"new_price": 1_000 + n % 90, "currency": "EUR", "source": "bench"})
    head = (
        f"POST /api/v1/tenants/{tenant}/products/http-{n % 500}/price-event HTTP/1.1",
        f"host: {place.netloc}",
        f"x-api-key: {key}",
        "accept: application/x-ndjson",
        f"content-length: {len(body)}",
        "\r\n",
    )
    writer.write("\r\n".join(head).encode() + body)
    told = await reader.readuntil(b'"type":"verdict"')
    late = time.perf_counter() - due
    assert told.startswith(b"HTTP/1.1 202"), told
    await reader.readuntil(b"\r\n0\r\n\r\n")
    idle.append((reader, writer))
    return late
