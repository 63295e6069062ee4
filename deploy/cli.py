"""The command line: `tillstream --help`."""

import asyncio
import json
import logging
import runpy
import shutil
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import Annotated, Any

import psycopg
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from deploy import bench as bench_
from deploy import demo as demo_
from deploy.stack import Stack
from producers import admin, generate, tenants
from producers.generate import PRESETS, Plan
from producers.http import Answer, IngestClient
from producers.tenants import Tenant
from schemas.errors import Rejected, TillstreamError
from schemas.settings import Settings
from sinks.audit import OUTCOMES
from sinks.audit import audit as audit_
from sinks.migrate import migrate as migrate_

app = typer.Typer(
    name="tillstream",
    help="Multi-tenant e-commerce ingestion on Kafka: nothing lost, nothing doubled.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
topics_app = typer.Typer(help="The topics of the catalogue.", no_args_is_help=True)
tenants_app = typer.Typer(help="Tenants and their API keys.", no_args_is_help=True)
app.add_typer(topics_app, name="topics")
app.add_typer(tenants_app, name="tenants")
console = Console()
errors = Console(stderr=True)

DataDir = Annotated[Path, typer.Option(help="Where the stack keeps its data.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


def main() -> None:
    """Run a command; errors of ours end it with what to do next. Exit codes: 1 failed, 2 put something right first."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        app()
    except TillstreamError as exc:
        errors.print(f"[red]tillstream:[/red] {exc}", highlight=False)
        sys.exit(1 if isinstance(exc, Rejected) else 2)
    except psycopg.OperationalError as exc:
        errors.print(f"[red]tillstream:[/red] PostgreSQL: {exc}", highlight=False)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


@app.command()
def up(data_dir: DataDir = Path(".tillstream")) -> None:
    """Run the whole stack in the foreground until Ctrl-C; data survive a restart.

    [dim]tillstream up --data-dir /srv/tillstream[/dim]
    """
    logging.basicConfig(level="WARNING", format="%(levelname)s %(message)s")
    with Stack.from_env(data_dir, on_step=_say) as stack:
        table = Table(show_header=False, box=None)
        table.add_row("gateway", stack.gateway_url)
        table.add_row("Kafka", stack.settings.kafka_bootstrap_servers)
        table.add_row("PostgreSQL", f"see {stack.data_dir / 'stack.json'} (it holds a password)")
        for role, url in stack.metrics_urls.items():
            table.add_row(f"metrics of {role}", url)
        table.add_row("logs", str(stack.data_dir / "logs"))
        console.print(table, soft_wrap=True)
        console.print("[green]up[/green]; Ctrl-C stops everything")
        threading.Event().wait()


@app.command()
def demo(
    tenant_count: Annotated[int, typer.Option("--tenants", min=1)] = 2,
    products: Annotated[int, typer.Option(help="Products a tenant.", min=1)] = 2_000,
    orders: Annotated[int, typer.Option(help="Orders a tenant.", min=1)] = 20_000,
    seed: int = 7,
) -> None:
    """Start a stack of its own, send generated data through it, print what happened, stop everything.

    Exits 0 only when every accepted row is accounted for.
    """
    logging.basicConfig(level="WARNING", format="%(levelname)s %(message)s")
    plan = Plan(tenant_count, products, orders, seed=seed)
    folder = Path(tempfile.mkdtemp(prefix="tillstream-demo-"))
    try:
        with Stack.from_env(folder, on_step=_say) as stack:
            held = demo_.run(stack, plan, console)
            console.print("[dim]stopping[/dim]")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if not held:
        raise typer.Exit(1)


def _role(name: str, arguments: list[str]) -> None:
    sys.argv = [f"tillstream {name}", *arguments]
    runpy.run_module(name, run_name="__main__")


@app.command()
def gateway() -> None:
    """Run a gateway (settings from the environment; README, "Configuration")."""
    _role("gateway", [])


@app.command()
def streams() -> None:
    """Run a streams worker."""
    _role("streams", [])


@app.command()
def sinks(
    accept_gap: Annotated[bool, typer.Option(help="Go on past records that the log no longer has.")] = False,
) -> None:
    """Run a sink."""
    _role("sinks", ["--accept-gap"] if accept_gap else [])


@app.command()
def migrate() -> None:
    """Bring the database's tables up to date."""
    applied = migrate_(Settings.from_env().database_url)
    console.print("\n".join(applied) if applied else "nothing to do")


@topics_app.command()
def ensure() -> None:
    """Make the missing topics and verify them all."""
    created = admin.ensure(Settings.from_env())
    console.print("\n".join(f"created {name}" for name in created) if created else "all topics fit the catalogue")


@tenants_app.command("add")
def tenants_add(
    tenant_id: str,
    name: Annotated[str, typer.Option(help="Shown to people.")] = "",
    currency: Annotated[str, typer.Option(help="Of products that name none.")] = "EUR",
    as_json: Json = False,
) -> None:
    """Make a tenant, or one more API key for it. The key is shown now and never again.

    [dim]tillstream tenants add acme --name "Acme Ltd" --currency EUR[/dim]
    """
    settings = Settings.from_env()
    if not 1 <= len(tenant_id) <= 100 or not tenant_id.isascii() or not tenant_id.replace("-", "a").isalnum():
        raise Rejected("bad_tenant_id", "a tenant id has 1 to 100 letters, digits and hyphens")
    known = tenants.read_all(settings).get(tenant_id) or Tenant(tenant_id, name or tenant_id, currency)
    tenant, key = tenants.with_new_key(known)
    tenants.put(settings, [tenant])
    if as_json:
        print(json.dumps({"tenant_id": tenant_id, "key_id": tenant.keys[-1].key_id, "api_key": key}))  # noqa: T201
    else:
        console.print(f"{tenant_id}: API key [bold]{key}[/bold] (it is stored nowhere: keep it)", soft_wrap=True)


@tenants_app.command("list")
def tenants_list(as_json: Json = False) -> None:
    """Tenants and the ids of their keys."""
    known = tenants.read_all(Settings.from_env())
    if as_json:
        listed = [
            {"tenant_id": t.tenant_id, "name": t.name, "keys": [k.key_id for k in t.keys]} for t in known.values()
        ]
        print(json.dumps(listed))  # noqa: T201
        return
    table = Table("tenant", "name", "currency", "keys")
    for tenant in sorted(known.values(), key=lambda t: t.tenant_id):
        ids = ", ".join(k.key_id + (" (revoked)" if k.expires_at else "") for k in tenant.keys)
        table.add_row(tenant.tenant_id, tenant.name, tenant.currency, ids)
    console.print(table)


@tenants_app.command("revoke")
def tenants_revoke(tenant_id: str, key_id: str) -> None:
    """End an API key now, on every running gateway."""
    settings = Settings.from_env()
    tenant = tenants.read_all(settings).get(tenant_id)
    if tenant is None:
        raise Rejected("unknown_tenant", f"there is no tenant {tenant_id}; see: tillstream tenants list")
    tenants.put(settings, [tenants.with_revoked_key(tenant, key_id)])
    console.print(f"{key_id} of {tenant_id} is revoked")


@app.command(name="generate")
def generate_(
    directory: Annotated[Path, typer.Argument(help="Where the files go.")],
    preset: Annotated[str, typer.Option(help=", ".join(PRESETS))] = "small",
    seed: int = 7,
) -> None:
    """Write seeded NDJSON files: customers, products, orders, stock and price events of several tenants.

    [dim]tillstream generate ./data --preset medium[/dim]
    """
    if preset not in PRESETS:
        raise Rejected("unknown_preset", f"--preset takes {', '.join(PRESETS)}")
    known = PRESETS[preset]
    plan = Plan(known.tenants, known.products_per_tenant, known.orders_per_tenant, seed=seed)
    with _progress() as progress:
        bar = progress.add_task("rows", total=plan.total_rows)
        generate.write(plan, directory, lambda _, rows: progress.advance(bar, rows))
    console.print(f"{plan.total_rows:,} rows in {directory}")


@app.command()
def ingest(
    file: Annotated[Path, typer.Argument(help="NDJSON, one row a line.", exists=True, dir_okay=False)],
    entity: Annotated[str, typer.Option(help="customers, products or orders.")],
    tenant_id: Annotated[str, typer.Option()],
    api_key: Annotated[str, typer.Option(envvar="TILLSTREAM_API_KEY")],
    gateway_url: Annotated[str, typer.Option(envvar="TILLSTREAM_GATEWAY_URL")] = "http://127.0.0.1:8080",
    concurrency: Annotated[int, typer.Option(min=1, max=32)] = 4,
) -> None:
    """Send a file of rows over HTTP, in chunks, with retries that cannot double a row.

    [dim]tillstream ingest orders.ndjson --entity orders --tenant-id acme --api-key ts_...[/dim]
    """
    total = Answer(accepted=0, rejected=0, event_ids=[], errors=[])
    size = file.stat().st_size

    def count(rows: int, answer: Answer) -> None:
        total.accepted += answer.accepted
        total.rejected += answer.rejected
        total.errors.extend(answer.errors[:10])

    async def send() -> None:
        with file.open("rb") as lines, _progress() as progress:
            bar = progress.add_task("bytes", total=size)

            def read() -> Any:
                for line in lines:
                    progress.advance(bar, len(line))
                    yield line

            async with IngestClient(gateway_url, tenant_id, api_key) as client:
                await client.send_all(entity, read(), on_chunk=count, concurrency=concurrency)

    try:
        asyncio.run(send())
    except* TillstreamError as group:
        raise group.exceptions[0] from None
    console.print(f"accepted {total.accepted:,}, rejected {total.rejected:,}")
    for error in total.errors[:10]:
        console.print(f"  line {error['line']} of its chunk, {error['pointer']}: {error['code']}, {error['detail']}")
    if total.rejected:
        raise typer.Exit(1)


@app.command()
def audit(
    wait: Annotated[float, typer.Option(help="Seconds to wait until nothing is in flight.")] = 0.0,
    as_json: Json = False,
) -> None:
    """Compare the log with the ledger: accepted - sum of outcomes = in flight.

    Exits 1 when the ledger contradicts the log, or when --wait has passed and rows are still in flight.
    """
    report = audit_(Settings.from_env(), wait_s=wait)
    if as_json:
        listed = {
            t: {"accepted": v.accepted, **v.outcomes, "in_flight": v.in_flight} for t, v in report.tenants.items()
        }
        print(json.dumps({"tenants": listed, "missing": report.missing, "wrong": report.wrong}))  # noqa: T201
    else:
        table = Table("tenant", "accepted", *OUTCOMES, "in flight")
        for tenant_id, tally in sorted(report.tenants.items()):
            counts = (tally.accepted, *tally.outcomes.values(), tally.in_flight)
            table.add_row(tenant_id, *(f"{count:,}" for count in counts))
        console.print(table)
        for line in (*report.wrong, *(report.missing if wait else ())):
            console.print(f"[red]{line}[/red]", highlight=False)
    if report.broken or (wait and not report.drained):
        raise typer.Exit(1)


@app.command()
def bench(rows: Annotated[int, typer.Option(help="Orders to send.", min=1_000)] = 200_000) -> None:
    """Measure speed and memory, with the limits taken in the same run. Leave the machine alone while it runs."""
    logging.basicConfig(level="WARNING", format="%(levelname)s %(message)s")
    folder = Path(tempfile.mkdtemp(prefix="tillstream-bench-"))
    try:
        with Stack.from_env(folder, on_step=_say) as stack:
            bench_.run(stack, rows, console)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=errors, disable=not errors.is_terminal)


def _say(step: str) -> None:
    console.print(f"[dim]starting[/dim] {step}")
