"""`tillstream bench`: speed and memory, each figure beside a limit measured in the same run.

Not a test: this prints what it saw. Ratios travel between machines, absolute figures do not.
"""

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import psutil
import psycopg
from rich.console import Console
from rich.table import Table

from deploy.stack import Stack, create_database
from producers import generate, tenants
from producers.generate import Plan
from producers.http import Answer, IngestClient
from producers.tenants import Tenant
from sinks.audit import audit
from sinks.migrate import migrate
from sinks.sql import statement

CHUNK: Final = 1_000
LIMIT_BATCH: Final = 20_000
_ROLES: Final = ("gateway", "streams", "sinks")


@dataclass
class Memory:
    """Resident megabytes of each role, sampled while a load runs."""

    stack: Stack
    peak: dict[str, float] = field(default_factory=dict)
    _stopping: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Memory":
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stopping.wait(0.2):
            for child in self.stack.supervisor.children:
                if child.name in _ROLES and child.pid:
                    self.peak[child.name] = max(
                        self.peak.get(child.name, 0.0), psutil.Process(child.pid).memory_info().rss / 1e6
                    )


def cpu_seconds(stack: Stack) -> dict[str, float]:
    """CPU time that each process has used, its children's included, and this client's."""
    used = {"client": sum(os.times()[:2])}
    for child in stack.supervisor.children:
        root = psutil.Process(child.pid)
        family = [root, *root.children(recursive=True)]
        used[child.name] = sum(sum(process.cpu_times()[:2]) for process in family)
    return used


def run(stack: Stack, rows: int, console: Console) -> None:
    """The end-to-end benchmark: `rows` orders by HTTP to rows, then the raw limit, as a table."""
    plan = Plan(1, 5_000, rows * 2, seed=11)
    tenant, key = tenants.with_new_key(Tenant("bench", "Benchmark"))
    tenants.put(stack.settings, [tenant])
    console.print(f"[dim]making {rows:,} orders of about 240 bytes[/dim]")
    lines = list(generate.order_240(plan, 0, 0, rows))
    warm_up = list(generate.order_240(plan, 0, rows, 5_000))
    asyncio.run(_send(stack.gateway_url, key, warm_up))
    audit(stack.settings, wait_s=60)
    with Memory(stack) as memory, console.status("orders over HTTP to rows"):
        before, started = cpu_seconds(stack), time.time()
        asyncio.run(_send(stack.gateway_url, key, lines))
        acknowledged = time.time() - started
        _until_applied(stack.settings.database_url, rows + len(warm_up))
        applied = time.time() - started
        used = {name: seconds - before[name] for name, seconds in cpu_seconds(stack).items()}
    with console.status("the limit: COPY + upsert on one connection"):
        limit = _limit(stack.settings.database_url, lines)
    table = Table(
        "measure", "value", "ratio to the limit", title=f"{rows:,} orders, {sum(map(len, lines)) // rows} bytes"
    )
    table.add_row("raw COPY + upsert, one connection", f"{limit:,.0f} rows/s", "1.00")
    table.add_row("HTTP to acknowledged", f"{rows / acknowledged:,.0f} rows/s", f"{rows / acknowledged / limit:.2f}")
    table.add_row("HTTP to rows in PostgreSQL", f"{rows / applied:,.0f} rows/s", f"{rows / applied / limit:.2f}")
    for name, seconds in sorted(used.items(), key=lambda item: -item[1]):
        table.add_row(f"CPU, {name}", f"{seconds / rows * 1e6:.1f} µs a row", "")
    for role, peak in sorted(memory.peak.items()):
        table.add_row(f"resident, {role}, at most", f"{peak:,.0f} MB", "")
    console.print(table)


async def _send(gateway_url: str, key: str, lines: list[bytes]) -> None:
    def on_chunk(rows: int, answer: Answer) -> None:
        assert answer.accepted == rows, answer.errors[:3]

    async with IngestClient(gateway_url, "bench", key) as client:
        await client.send_all("orders", lines, on_chunk=on_chunk, concurrency=8, chunk_rows=CHUNK)


def _until_applied(database_url: str, rows: int) -> None:
    with psycopg.connect(database_url, autocommit=True) as db:
        while db.execute("SELECT coalesce(sum(applied), 0) FROM ledger").fetchone() != (rows,):
            time.sleep(0.02)


def _limit(database_url: str, lines: list[bytes]) -> float:
    """Rows a second that the same upsert takes when somebody has formatted the rows already."""
    with psycopg.connect(database_url, autocommit=True) as db:
        db.execute("DROP DATABASE IF EXISTS bench_limit")
    url = create_database(database_url, "bench_limit")
    migrate(url)
    batches = [b"".join(_copy_text(lines[i : i + LIMIT_BATCH])) for i in range(0, len(lines), LIMIT_BATCH)]
    with psycopg.connect(url) as db:
        db.execute(statement("staging"))
        db.commit()
        started = time.perf_counter()
        for batch in batches:
            with db.cursor().copy("COPY staged_orders FROM STDIN") as copy:
                copy.write(batch)
            db.execute(statement("upsert_orders"))
            db.commit()
        return len(lines) / (time.perf_counter() - started)


def _copy_text(lines: list[bytes]) -> Iterator[bytes]:
    import msgspec

    from schemas.rows import Order

    for n, line in enumerate(lines):
        row = msgspec.json.decode(line, type=Order)
        fields = [
            "bench", row.external_order_id, f"00000000-0000-5000-8000-{n:012d}", row.customer_id, row.customer_name,
            row.customer_email, int(row.total_amount * 100), row.currency, row.order_status,
            row.order_date.isoformat(), None, None, "2026-01-01T00:00:00Z", n, 0,
        ]  # fmt: skip
        yield ("\t".join("\\N" if value is None else str(value) for value in fields) + "\n").encode()
