"""Commands that work on a running installation: tenants, audit.

They find the stack that `tillstream up` runs in `./.tillstream`; KAFKA_BOOTSTRAP_SERVERS and DATABASE_URL go before it.
"""

import json
import re
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from deploy.stack import running
from producers import tenants
from producers.tenants import Tenant
from schemas.errors import Rejected
from sinks.audit import OUTCOMES
from sinks.audit import audit as audit_

tenants_app = typer.Typer(help="Tenants and their API keys.", no_args_is_help=True)
console = Console()

DataDir = Annotated[
    Path, typer.Option(envvar="TILLSTREAM_DATA_DIR", help="Where a stack keeps its data.", show_default=True)
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
DEFAULT_DATA_DIR: Final = Path(".tillstream")
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
