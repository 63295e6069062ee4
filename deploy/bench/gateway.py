"""The gateway alone: bodies parsed, checked, encoded and acknowledged by Kafka; nobody reads the topic."""

from collections.abc import Iterator
from statistics import median
from time import perf_counter
from typing import Final

import msgspec

from deploy.bench import figures, rows
from deploy.bench.figures import Figure
from deploy.bench.installation import TENANT, Installation, Say, spent
from deploy.bench.load import Client, Load, fire
from deploy.stack import Stack
from schemas.rows import ENTITIES

TARGET: Final = 60_000
_WARM_UP: Final = 20_000
_ROUNDS: Final = 3


def run(stack: Stack, count: int, say: Say) -> Iterator[Figure]:
    """Orders in bodies of 1,000 rows on 8 connections, acknowledged by Kafka; medians of three rounds."""
    say("gateway alone")
    with Installation(stack, "gateway") as shop:
        key = shop.tenant()
        shop.start("gateway")
        load = Load(f"{shop.gateway_url}/api/v1/tenants/{TENANT}/ingest/orders", key, count=count)
        fire(msgspec.structs.replace(load, count=min(count, _WARM_UP))).only(202)
        speeds, costs = [], []
        for _ in range(_ROUNDS):
            client, before = Client(load), shop.cpu_seconds()
            sent = client.go().result().only(202)
            speeds.append(count / sent.seconds)
            costs.append(spent(before, shop.cpu_seconds()) | {"client": sent.cpu_s})
    limit, speed = _decoding(count), median(speeds)
    yield figures.limit("JSON decoding alone", limit)
    yield Figure("rows acknowledged", f"{speed:,.0f} rows/s", speed / limit, f">= {TARGET:,} rows/s", speed >= TARGET)
    middle = {name: median(cost[name] for cost in costs) for name in costs[0]}
    yield from figures.cpu(middle, count)
    yield Figure("by its CPU, on a free core", f"{count / middle['gateway']:,.0f} rows/s")


def _decoding(count: int) -> float:
    """Rows a second that msgspec reads into their structs, and nothing else."""
    lines = list(rows.lines("orders", 0, count))
    decode = msgspec.json.Decoder(ENTITIES["orders"].row).decode
    started = perf_counter()
    for line in lines:
        decode(line)
    return count / (perf_counter() - started)
