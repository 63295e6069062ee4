"""Commands that work on a running installation: tenants, generate, ingest, audit.

They find the stack that `tillstream up` runs in `./.tillstream`; KAFKA_BOOTSTRAP_SERVERS and DATABASE_URL go before it.
"""

import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, BinaryIO, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from deploy.stack import running
from producers import generate as generate_
from producers import tenants
from producers.generate import PRESETS
from producers.http import Answer, IngestClient
from producers.tenants import Tenant
from schemas.errors import Rejected, TillstreamError
from schemas.rows import ENTITIES
from sinks.audit import OUTCOMES
from sinks.audit import audit as audit_

tenants_app = typer.Typer(help="Tenants and their API keys.", no_args_is_help=True)
console = Console()
errors = Console(stderr=True)

DataDir = Annotated[
    Path, typer.Option(envvar="TILLSTREAM_DATA_DIR", help="Where a stack keeps its data.", show_default=True)
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
DEFAULT_DATA_DIR: Final = Path(".tillstream")
_SHOWN: Final = 10
"""Row errors shown after an ingest."""
_TENANT_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,99}")


@tenants_app.command("add")
def tenants_add(
    tenant_id: str,
    name: Annotated[str, typer.Option(help="Shown to people.")] = "",
    currency: Annotated[str, typer.Option(help="Of products that name none.")] = "EUR",
    as_json: Json = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Make a tenant, or one more API key for it. The key is shown now and never again.

    [dim]tillstream tenants add acme --name "Acme Ltd" --currency EUR[/dim]
    """
    settings, _ = running(data_dir)
    if not _TENANT_ID.fullmatch(tenant_id):
        raise Rejected("bad_tenant_id", "a tenant id has 1 to 100 letters, digits and hyphens, no hyphen first")
    if not re.fullmatch("[A-Z]{3}", currency):
        raise Rejected("bad_currency", f"--currency takes an ISO 4217 code such as EUR, not {currency!r}")
    known = tenants.read_all(settings).get(tenant_id) or Tenant(tenant_id, name or tenant_id, currency)
    tenant, key = tenants.with_new_key(known)
    tenants.put(settings, [tenant])
    if as_json:
        print(json.dumps({"tenant_id": tenant_id, "key_id": tenant.keys[-1].key_id, "api_key": key}))  # noqa: T201
    else:
        console.print(f"{tenant_id}: API key [bold]{key}[/bold] (it is stored nowhere: keep it)", soft_wrap=True)


@tenants_app.command("list")
def tenants_list(as_json: Json = False, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Tenants and the ids of their keys."""
    known = tenants.read_all(running(data_dir)[0])
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
def tenants_revoke(tenant_id: str, key_id: str, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """End an API key now, on every running gateway."""
    settings, _ = running(data_dir)
    tenant = tenants.read_all(settings).get(tenant_id)
    if tenant is None:
        raise Rejected("unknown_tenant", f"there is no tenant {tenant_id}; see: tillstream tenants list")
    tenants.put(settings, [tenants.with_revoked_key(tenant, key_id)])
    console.print(f"{key_id} of {tenant_id} is revoked")


def generate(
    directory: Annotated[Path, typer.Argument(help="Where the files go.")],
    preset: Annotated[str, typer.Option(help=", ".join(PRESETS))] = "small",
    seed: int = 7,
) -> None:
    """Write seeded NDJSON files: customers, products, orders, stock and price events of several tenants.

    [dim]tillstream generate ./data --preset medium[/dim]
    """
    if preset not in PRESETS:
        raise Rejected("unknown_preset", f"--preset takes {', '.join(PRESETS)}")
    plan = replace(PRESETS[preset], seed=seed)
    with _progress() as progress:
        bar = progress.add_task("rows", total=plan.total_rows)
        generate_.write(plan, directory, lambda _, rows: progress.advance(bar, rows))
    console.print(f"{plan.total_rows:,} rows in {directory}")


def ingest(
    file: Annotated[Path, typer.Argument(help="NDJSON, one row a line.", exists=True, dir_okay=False)],
    entity: Annotated[str, typer.Option(help="customers, products or orders.")],
    tenant_id: Annotated[str, typer.Option()],
    api_key: Annotated[str, typer.Option(envvar="TILLSTREAM_API_KEY")],
    gateway_url: Annotated[str, typer.Option(envvar="TILLSTREAM_GATEWAY_URL", help="By default the stack's.")] = "",
    concurrency: Annotated[int, typer.Option(min=1, max=32)] = 4,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Send a file of rows over HTTP, in chunks, with retries that cannot double a row.

    [dim]tillstream ingest orders.ndjson --entity orders --tenant-id acme --api-key ts_...[/dim]
    """
    if entity not in ENTITIES:
        raise Rejected("unknown_entity", f"--entity takes {', '.join(ENTITIES)}, not {entity!r}")
    url = gateway_url or running(data_dir)[1]
    try:
        total = asyncio.run(_ingest(file, entity, IngestClient(url, tenant_id, api_key), concurrency))
    except* TillstreamError as group:
        raise group.exceptions[0] from None
    console.print(f"accepted {total.accepted:,}, rejected {total.rejected:,}")
    for error in total.errors:
        console.print(f"  line {error['line']} of its chunk, {error['pointer']}: {error['code']}, {error['detail']}")
    if total.rejected:
        raise typer.Exit(1)


async def _ingest(file: Path, entity: str, client: IngestClient, concurrency: int) -> Answer:
    total = Answer(accepted=0, rejected=0, event_ids=[], errors=[])

    def count(rows: int, answer: Answer) -> None:
        total.accepted += answer.accepted
        total.rejected += answer.rejected
        total.errors.extend(answer.errors[: _SHOWN - len(total.errors)])

    with file.open("rb") as lines, _progress() as progress:
        bar = progress.add_task("bytes", total=file.stat().st_size)

        def counted(lines: BinaryIO) -> Iterator[bytes]:
            for line in lines:
                progress.advance(bar, len(line))
                yield line

        async with client:
            await client.send_all(entity, counted(lines), on_chunk=count, concurrency=concurrency)
    return total


def audit(
    wait: Annotated[float, typer.Option(help="Seconds to wait until nothing is in flight.")] = 0.0,
    as_json: Json = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Compare the log with the ledger: accepted - sum of outcomes = in flight.

    Exits 1 when the ledger contradicts the log, or when --wait has passed and rows are still in flight.
    """
    report = audit_(running(data_dir)[0], wait_s=wait)
    if as_json:
        listed = {
            t: {"accepted": v.accepted, **v.outcomes, "in_flight": v.in_flight} for t, v in report.tenants.items()
        }
        print(json.dumps({"tenants": listed, "missing": report.missing, "wrong": report.wrong}))  # noqa: T201
    else:
        table = Table(
            "tenant", "accepted", *OUTCOMES, "in flight", box=None, padding=(0, 2, 0, 0), collapse_padding=True
        )
        for tenant_id, tally in sorted(report.tenants.items()):
            counts = (tally.accepted, *tally.outcomes.values(), tally.in_flight)
            table.add_row(tenant_id, *(f"{count:,}" for count in counts))
        console.print(table)
        for line in (*report.wrong, *(report.missing if wait else ())):
            console.print(f"[red]{line}[/red]", highlight=False)
    if report.broken or (wait and not report.drained):
        raise typer.Exit(1)


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=errors, disable=not errors.is_terminal)
