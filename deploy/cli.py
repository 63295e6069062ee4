"""The command line: `tillstream --help`."""

import logging
import runpy
import shutil
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import Annotated

import confluent_kafka
import psycopg
import typer
from psycopg.conninfo import conninfo_to_dict
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from deploy import credentials, dlq, operate, prices, scrape, tenants, uploads
from deploy import demo as demo_
from deploy.bench import run as bench_
from deploy.chaos.command import chaos
from deploy.doctor import doctor
from deploy.export import export
from deploy.generate import generate
from deploy.ingest import ingest
from deploy.operate import DEFAULT_DATA_DIR, DataDir
from deploy.paragraphs import flow
from deploy.replay import rebuild, replay
from deploy.stack import STACK_FILE, Stack, running
from deploy.stock import stock
from producers import admin
from producers.generate import Plan
from schemas.errors import TillstreamError, Unavailable
from sinks.migrate import migrate as migrate_

app = typer.Typer(
    name="tillstream",
    help="Multi-tenant e-commerce ingestion on Kafka: nothing lost, nothing doubled.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
topics_app = typer.Typer(help="The topics of the catalogue.", no_args_is_help=True)
app.add_typer(topics_app, name="topics")
app.add_typer(tenants.app, name="tenants")
app.add_typer(prices.app, name="prices")
app.add_typer(uploads.app, name="uploads")
app.add_typer(dlq.app, name="dlq")
for command in (generate, ingest, export, stock, operate.audit, replay, rebuild, doctor, chaos):
    app.command()(command)
console = Console()
errors = Console(stderr=True)


def main() -> None:
    """Run a command; errors of ours end it with what to do next. Exit codes: 1 failed, 2 put it right, 75 try again."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        flow(typer.main.get_command(app))()
    except TillstreamError as exc:
        _fail(str(exc))
        sys.exit(75 if isinstance(exc, Unavailable) else 2)
    except confluent_kafka.KafkaException as exc:
        _fail(f"Kafka: {exc.args[0].str()}")
        sys.exit(2)
    except psycopg.OperationalError as exc:
        _fail(f"PostgreSQL: {exc}")
        sys.exit(2)
    except OSError as exc:
        _fail(str(exc))
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(why: str) -> None:
    errors.print(f"[red]tillstream:[/red] {escape(why)}", highlight=False, soft_wrap=True)


@app.command()
def up(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Run the whole stack in the foreground until Ctrl-C; data survive a restart.

    [dim]tillstream up --data-dir /srv/tillstream[/dim]
    """
    logging.basicConfig(level="WARNING", format="%(levelname)s %(message)s")
    with Stack.from_env(data_dir, on_step=_say) as stack:
        table = Table(show_header=False, box=None)
        table.add_row("gateway", stack.gateway_url)
        table.add_row("console", f"{stack.gateway_url}/console")
        table.add_row("Kafka", stack.settings.kafka_bootstrap_servers)
        table.add_row("PostgreSQL", f"see {stack.data_dir / STACK_FILE} (it holds a password)")
        for role, url in stack.metrics_urls.items():
            table.add_row(f"metrics of {role}", url)
        table.add_row("Prometheus", f"prometheus --config.file {stack.data_dir / scrape.FOLDER / 'prometheus.yml'}")
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
    keep: Annotated[bool, typer.Option("--keep", help="Leave it running, with some traffic, for the console.")] = False,
) -> None:
    """Start a stack of its own, send generated data through it, print what happened, stop everything.

    Exits 0 only when every accepted row is accounted for.
    """
    logging.basicConfig(level="WARNING", format="%(levelname)s %(message)s")
    plan = Plan(tenant_count, products, orders, seed=seed)
    folder = Path(tempfile.mkdtemp(prefix="tillstream-demo-"))
    try:
        with Stack.from_env(folder, on_step=_say) as stack:
            keys = demo_.make_tenants(stack.settings, plan)
            held = demo_.run(stack, plan, keys, console)
            console.print(f"The console: {stack.gateway_url}/console" + ("" if keep else " (--keep leaves it running)"))
            if keep:
                for tenant_id, key in keys.items():
                    console.print(f"  log in as {tenant_id} with {key}", highlight=False)
                console.print("rows go on coming; Ctrl-C stops everything")
                demo_.keep(stack, plan, keys)
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
    """Run a streams worker; SIGTERM is for a restart, Ctrl-C for good (README, "More workers").

    [dim]TILLSTREAM_STREAMS_WORKER_ID=streams-1 tillstream streams[/dim]
    """
    _role("streams", [])


@app.command()
def sinks(
    accept_gap: Annotated[bool, typer.Option(help="Go on past records that the log no longer has.")] = False,
) -> None:
    """Run a sink."""
    _role("sinks", ["--accept-gap"] if accept_gap else [])


@app.command()
def migrate(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Bring the database's tables up to date, and make the gateways' login where its URL is known.

    TILLSTREAM_READER_DATABASE_URL says its name and password; DATABASE_URL's user must be allowed to make roles then.

    [dim]DATABASE_URL=postgresql://owner:...@db/tillstream tillstream migrate[/dim]
    """
    settings, _ = running(data_dir)
    applied = migrate_(settings.database_url)
    console.print("\n".join(applied) if applied else "nothing to do")
    reader = conninfo_to_dict(settings.reader_database_url)
    if reader.get("user") and reader.get("password"):
        credentials.make_reader(settings.database_url, str(reader["user"]), str(reader["password"]))
        console.print(f"{reader['user']} may log in, and read one tenant at a time")


@topics_app.command()
def ensure(
    alter: Annotated[
        bool, typer.Option("--alter", help="Set what differs on those that exist. A shorter retention deletes.")
    ] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Make the missing topics and verify them all."""
    settings = running(data_dir)[0]
    done = admin.alter(settings) if alter else []
    done += [f"created {name}" for name in admin.ensure(settings)]
    console.print("\n".join(done) if done else "all topics fit the catalogue", highlight=False, soft_wrap=True)


@app.command()
def bench(
    only: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(bench_.ALL)}; repeatable.")] = None,
    rows: Annotated[int, typer.Option(help="Rows of each entity.", min=1_000)] = 200_000,
) -> None:
    """Measure speed and memory, with the limits taken in the same run. Leave the machine alone while it runs.

    [dim]tillstream bench --only ingest --only sinks --rows 50000[/dim]
    """
    logging.basicConfig(level="WARNING", format="%(levelname)s %(message)s")
    names = bench_.chosen(only or [])
    folder = Path(tempfile.mkdtemp(prefix="tillstream-bench-"))
    try:
        with Stack.from_env(folder, on_step=_say, roles=()) as stack:
            bench_.run(stack, names, rows, console)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _say(step: str) -> None:
    console.print(f"[dim]starting[/dim] {step}")
