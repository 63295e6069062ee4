"""`tillstream demo`: the whole pipeline on generated data, and a table of what happened."""

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, Final

import psycopg
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from deploy import live_traffic
from deploy.stack import Stack
from producers import generate, tenants
from producers.generate import Plan
from producers.http import Answer, IngestClient
from producers.tenants import Tenant
from schemas.settings import Settings
from sinks.audit import OUTCOMES, Report, audit

DRAIN_S: Final = 120.0
_SENT_TWICE: Final = 500


@dataclass
class Sent:
    """What the client saw."""

    rows: int = 0
    accepted: int = 0
    rejected: int = 0
    reasons: list[str] = field(default_factory=list)

    def add(self, rows: int, answer: Answer) -> None:
        self.rows += rows
        self.accepted += answer.accepted
        self.rejected += answer.rejected
        self.reasons += [f"line {e['line']} {e['pointer']}: {e['code']}, {e['detail']}" for e in answer.errors[:3]]


def run(stack: Stack, plan: Plan, keys: dict[str, str], console: Console) -> bool:
    """Send everything, wait until it is applied, print what happened. True when the conservation law holds."""
    sent = Sent()
    started = time.time()
    asyncio.run(_send(stack.gateway_url, keys, plan, sent, console))
    accepted_after = time.time() - started
    with console.status("waiting until everything is applied"):
        report = audit(stack.settings, wait_s=DRAIN_S)
    _print(console, stack.settings, sent, report, started, accepted_after)
    return _verdict(console, sent, report)


def keep(stack: Stack, plan: Plan, keys: dict[str, str]) -> None:
    """Send a little of everything until Ctrl-C."""
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(live_traffic.send(stack.gateway_url, keys, plan))


def make_tenants(settings: Settings, plan: Plan) -> dict[str, str]:
    """Publish the tenants; return their API keys."""
    keys: dict[str, str] = {}
    made = []
    for index in range(plan.tenants):
        tenant, key = tenants.with_new_key(Tenant(generate.tenant_id(index), generate.tenant_id(index)))
        keys[tenant.tenant_id] = key
        made.append(tenant)
    tenants.put(settings, made)
    return keys


async def _send(gateway_url: str, keys: dict[str, str], plan: Plan, sent: Sent, console: Console) -> None:
    rows_per_tenant = plan.customers_per_tenant + plan.products_per_tenant + plan.orders_per_tenant
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bars = {tenant_id: progress.add_task(tenant_id, total=rows_per_tenant) for tenant_id in keys}

        async def one(index: int, tenant_id: str, key: str) -> None:
            def on_chunk(rows: int, answer: Answer) -> None:
                sent.add(rows, answer)
                progress.advance(bars[tenant_id], rows)

            bad = [line for line, _ in generate.bad_rows(index)]
            async with IngestClient(gateway_url, tenant_id, key) as client:
                await client.send_all("customers", generate.customers(plan, index), on_chunk=on_chunk)
                await client.send_all("products", generate.products(plan, index), on_chunk=on_chunk)
                await client.send_all("orders", chain(bad, generate.orders(plan, index)), on_chunk=on_chunk)
                again = b"".join(islice(generate.orders(plan, index), _SENT_TWICE))
                for _ in range(2):
                    sent.add(again.count(b"\n"), await client.send("orders", again, "this-chunk-goes-twice"))

        async with asyncio.TaskGroup() as group:
            for index, (tenant_id, key) in enumerate(keys.items()):
                group.create_task(one(index, tenant_id, key))


def _print(
    console: Console, settings: Settings, sent: Sent, report: Report, started: float, accepted_after: float
) -> None:
    with psycopg.connect(settings.database_url) as db:
        counts: list[Any] = db.execute(
            "SELECT (SELECT count(*) FROM customers), (SELECT count(*) FROM products),"
            " (SELECT count(*) FROM orders), (SELECT count(*) FROM order_items)"
        ).fetchall()
        timing = db.execute(
            "SELECT extract(epoch FROM max(applied_at))::float8,"
            " percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM applied_at - accepted_at)),"
            " percentile_cont(0.95) WITHIN GROUP (ORDER BY extract(epoch FROM applied_at - accepted_at))"
            " FROM ledger WHERE outcome = 'applied'"
        ).fetchone()
    assert timing is not None
    total = {name: sum(t.outcomes[name] for t in report.tenants.values()) for name in OUTCOMES}
    table = Table(title="What happened", show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column(style="dim")
    table.add_row("rows sent", f"{sent.rows:,}", f"{len(report.tenants)} tenants, by HTTP")
    table.add_row("accepted", f"{sent.accepted:,}", f"in {accepted_after:.1f} s, acknowledged by Kafka")
    table.add_row("rejected at the gateway", f"{sent.rejected:,}", "on purpose; two of the reasons:")
    for reason in sent.reasons[:2]:
        table.add_row("", "", reason)
    table.add_row("duplicates dropped", f"{total['duplicate']:,}", "one chunk a tenant was sent twice")
    table.add_row("applied", f"{total['applied']:,}", "")
    table.add_row("superseded", f"{total['superseded']:,}", "older than, or equal to, what was there")
    table.add_section()
    for name, count in zip(("customers", "products", "orders", "order items"), counts[0], strict=True):
        table.add_row(f"{name} in PostgreSQL", f"{count:,}", "")
    table.add_section()
    if timing[0] is not None:
        table.add_row("rows/s", f"{sent.accepted / (timing[0] - started):,.0f}", "first request to last row applied")
        table.add_row("request to row, p50", f"{timing[1] * 1000:,.0f} ms", "under this load, a message")
        table.add_row("request to row, p95", f"{timing[2] * 1000:,.0f} ms", "")
    console.print(table)


def _verdict(console: Console, sent: Sent, report: Report) -> bool:
    """Say whether accepted = applied + superseded + duplicate + conflict + rejected, and what is missing if not."""
    logged = sum(tally.accepted for tally in report.tenants.values())
    if logged != sent.accepted:
        console.print(f"[red]The gateway accepted {sent.accepted:,} rows, the log holds {logged:,}.[/red]")
        return False
    if report.drained and not report.broken:
        console.print("[green]The conservation law holds: every accepted row is accounted for, once.[/green]")
        return True
    console.print(f"[red]The conservation law is broken: {report.in_flight:,} accepted rows are unaccounted for.[/red]")
    for line in (*report.missing, *report.wrong):
        console.print(f"  {line}", highlight=False)
    return False
