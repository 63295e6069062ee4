"""Exports: files that a sink's process writes against psql's \\copy of the same query to a file."""

import time
from collections.abc import Iterator
from statistics import median
from typing import Any, Final

import httpx

from deploy.bench import figures
from deploy.bench.figures import Figure
from deploy.bench.installation import TENANT, Installation, Say
from deploy.bench.reads import fill, to_file
from deploy.stack import Stack
from gateway import reads

TARGET: Final = 0.7
_MOST_MB: Final = 100
_LEAST_ROWS: Final = 1_000_000
_COPIES: Final = 5
_MULTIPLY: Final = """
INSERT INTO orders (tenant_id, external_order_id, id, customer_id, customer_name, customer_email, total_amount,
                    currency, order_status, order_date, raw_payload, updated_at, version_at, version_offset,
                    version_row)
SELECT tenant_id, external_order_id || '-' || n, gen_random_uuid(), customer_id, customer_name, customer_email,
       total_amount, currency, order_status, order_date, raw_payload, updated_at, version_at, version_offset,
       version_row
FROM orders, generate_series(2, %s) n
"""
"""More orders like those there are: to make all of them here would take minutes."""
_ROUNDS: Final = 3
_LOOK_S: Final = 0.02


def run(stack: Stack, count: int, say: Say) -> Iterator[Figure]:
    """All orders of a tenant, 1,000,000 or more, to files, in turn with psql's of the same query; medians of three."""
    count = max(count, _LEAST_ROWS) // _COPIES * _COPIES
    with Installation(stack, "exports") as shop:
        key = shop.tenant()
        say(f"{count:,} orders into PostgreSQL")
        fill(shop.settings.database_url, count // _COPIES)
        with shop.database() as db:
            db.execute(_MULTIPLY, [_COPIES])
            db.execute("VACUUM ANALYZE orders")
        shop.start("gateway", "sinks")
        most_mb = 0.0
        for name, format_, media_type in (("CSV", "csv", reads.CSV), ("NDJSON", "ndjson", reads.NDJSON)):
            say(f"orders as {name}")
            files, exports = [], []
            for _ in range(_ROUNDS):
                files.append(count / to_file(stack, shop.settings.database_url, media_type))
                seconds, mb = _export(shop, key, count, format=format_)
                exports.append(count / seconds)
                most_mb = max(most_mb, mb)
            limit = median(files)
            yield figures.limit(f"psql \\copy, {name}", limit)
            yield figures.share(f"export, {name}", median(exports), limit, TARGET)
        say("orders as CSV, compressed")
        seconds, mb = _export(shop, key, count, format="csv", gzip=True)
        yield Figure("export, CSV, gzip", f"{count / seconds:,.0f} rows/s")
        most_mb = max(most_mb, mb)
        yield Figure(
            "exporting process, resident", f"{most_mb:.0f} MB", None, f"< {_MOST_MB} MB", 0 < most_mb < _MOST_MB
        )


def _export(shop: Installation, key: str, count: int, **asked: Any) -> tuple[float, float]:
    """Seconds from the claim to the file in its place, the process's start included, and its most megabytes."""
    url, auth = f"{shop.gateway_url}/api/v1/tenants/{TENANT}/exports", {"X-API-Key": key}
    answer = httpx.post(url, json={"entity": "orders", **asked}, headers=auth)
    answer.raise_for_status()
    most_mb = 0.0
    with shop.database() as db:
        while True:
            most_mb = max(most_mb, shop.resident_children("sinks"))
            found = db.execute(
                "SELECT extract(epoch FROM finished_at - started_at)::float, state, rows_done, reason FROM exports"
                " WHERE export_id = %s::uuid AND finished_at IS NOT NULL",
                [answer.json()["export_id"]],
            ).fetchone()
            if found is not None:
                break
            time.sleep(_LOOK_S)
    assert found[1:3] == ("done", count), found
    return found[0], most_mb
