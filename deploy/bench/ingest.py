"""HTTP to rows in PostgreSQL, through all roles, against COPY + upsert of the same rows."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import psycopg

from deploy.bench import figures, rows
from deploy.bench.figures import Figure
from deploy.bench.installation import TENANT, Installation, Say, spent
from deploy.bench.limit import Limit
from deploy.bench.load import Client, Load, fire
from deploy.stack import Stack

TARGET: Final = 0.35
GOAL: Final = {"orders": 0.5}
_WARM_UP: Final = 5_000
_LOOK_S: Final = 0.05


@dataclass(frozen=True)
class Way:
    """Rows a second to Kafka's acknowledgement and to PostgreSQL, CPU seconds and resident megabytes a process."""

    acknowledged: float
    applied: float
    cpu_s: dict[str, float]
    resident_mb: dict[str, float]


def run(stack: Stack, count: int, say: Say) -> Iterator[Figure]:
    """HTTP to rows in PostgreSQL through all roles, bodies of 1,000 rows on 8 connections."""
    with Installation(stack, "ingest") as shop:
        key = shop.tenant()
        shop.start("gateway", "streams", "sinks")
        for entity in rows.ENTITIES:
            say(f"{entity} over HTTP to rows, and their limit")
            limit = Limit(stack.settings.database_url, entity, count)
            way = send(shop, key, entity, count)
            limit.look()
            most = limit.most
            yield figures.limit(f"COPY + upsert, {entity}", most)
            yield figures.share(f"{entity}, HTTP to acknowledged", way.acknowledged, most)
            yield figures.share(f"{entity}, HTTP to rows", way.applied, most, TARGET)
            if goal := GOAL.get(entity):
                yield Figure("    the goal", "", way.applied / most, f">= {goal:.2f}", way.applied / most >= goal)
            yield from figures.cpu(way.cpu_s, count)
            for role, peak in sorted(way.resident_mb.items()):
                yield Figure(f"resident, {role}, at most", f"{peak:,.0f} MB")


def send(shop: Installation, key: str, entity: str, count: int, *, ahead: bool = True) -> Way:
    """Send `count` rows that are new, and wait until all are in PostgreSQL."""
    url = f"{shop.gateway_url}/api/v1/tenants/{TENANT}/ingest/{entity}"
    with shop.database() as db:
        known = applied(db)
    fire(Load(url, key, entity, first=count, count=_WARM_UP)).only(202)
    until_applied(shop, known + _WARM_UP)
    client = Client(Load(url, key, entity, count=count, ahead=ahead))
    with shop.memory() as peak:
        before, started = shop.cpu_seconds(), time.time()
        sent = client.go().result().only(202)
        until_applied(shop, known + _WARM_UP + count)
        used = spent(before, shop.cpu_seconds()) | {"client": sent.cpu_s}
    with shop.database() as db:
        last = db.execute("SELECT extract(epoch FROM max(applied_at))::float8 FROM ledger").fetchone()
    assert last is not None
    return Way(count / sent.seconds, count / (last[0] - started), used, peak)


def until_applied(shop: Installation, count: int) -> None:
    """Return when the ledger has so many rows applied."""
    with shop.database() as db:
        while applied(db) != count:
            time.sleep(_LOOK_S)


def applied(db: psycopg.Connection[Any]) -> int:
    """Rows that the ledger has as applied."""
    row = db.execute("SELECT coalesce(sum(applied), 0)::bigint FROM ledger").fetchone()
    assert row is not None
    return int(row[0])
