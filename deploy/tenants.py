"""`tillstream tenants`: tenants, their API keys, limits and policies. All of it talks to Kafka, not to a gateway."""

import csv
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, TextIO

import typer
from rich.table import Table

from deploy import tenant_files
from deploy.operate import DEFAULT_DATA_DIR, DataDir, Json, bars, console, show, table_of
from deploy.stack import running
from producers import tenants
from producers.tenant import MAX_GRACE_S, ORDER_TOTALS, now, rfc3339
from producers.tenants import Change, Tenant
from schemas.errors import Misconfigured, Rejected, TillstreamError

app = typer.Typer(help="Tenants and their API keys, limits and policies.", no_args_is_help=True)

_DURATION: Final = re.compile(r"([0-9]{1,9})([smhd]?)")
_UNITS: Final = {"": "seconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@app.command()
def add(
    tenant_id: str,
    name: Annotated[str, typer.Option(help="Shown to people.", show_default="the id")] = "",
    currency: Annotated[str, typer.Option(help="Of products that name none.", show_default="EUR")] = "",
    as_json: Json = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Make a tenant, or one more API key for it. The key is shown now and never again.

    [dim]tillstream tenants add acme --name "Acme Ltd" --currency EUR[/dim]
    """
    given = {field: value for field, value in (("name", name), ("currency", currency)) if value}
    key, exists = "", False

    def made(known: Tenant | None) -> Tenant:
        nonlocal key, exists
        exists = known is not None
        if known is not None and tenants.merged(known, given) != known:
            raise Rejected("tenant_exists", f"{tenant_id} exists as {known.name}, {known.currency}; "
                           f"change that with: tillstream tenants set {tenant_id}")  # fmt: skip
        tenant, key = tenants.with_new_key(known or tenants.merged(Tenant(tenant_id, tenant_id), given))
        return tenant

    tenant = tenants.change(running(data_dir)[0], tenant_id, made)
    _show_key(tenant, key, as_json, "one more API key" if exists else "API key", created=not exists)


@app.command()
def load(
    file: Annotated[Path, typer.Argument(help="CSV; its first line names the columns.", exists=True, dir_okay=False)],
    keys: Annotated[
        Path | None, typer.Option(help="Write the new keys to this file (mode 0600), not the screen.")
    ] = None,
    as_json: Json = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Make or change many tenants at once, all or none; each new one gets an API key.

    Columns: tenant_id, and of name, currency, requests_per_minute, product_events_per_minute, currencies (EUR|USD),
    order_totals and oversell (yes or no) those that you have. An empty cell leaves a tenant as it is.

    [dim]tillstream tenants load tenants.csv --keys keys.csv[/dim]
    """
    rows = tenant_files.read(file)
    made: dict[str, str] = {}

    def change_of(row: tenant_files.Row) -> Change:
        def to(known: Tenant | None) -> Tenant:
            if known is not None:
                return tenants.merged(known, row.given)
            fresh = tenants.merged(Tenant(row.tenant_id, row.tenant_id), row.given)
            tenant, made[row.tenant_id] = tenants.with_new_key(fresh)
            return tenant

        return to

    changes = {row.tenant_id: change_of(row) for row in rows}
    with _keys_file(keys) if keys else nullcontext() as out, bars() as progress:
        bar = progress.add_task("tenants", total=len(rows))
        tenants.change_all(running(data_dir)[0], changes, on_sent=lambda: progress.advance(bar))
        if out is not None:
            csv.writer(out).writerows([("tenant_id", "api_key"), *made.items()])
    shown = {"loaded": len(rows), "created": len(made)} | ({} if keys else {"api_keys": made})
    if as_json:
        print(json.dumps(shown))  # noqa: T201
        return
    if made and keys is None:
        table = table_of("tenant", "API key (it is stored nowhere: keep it)")
        for tenant_id, key in made.items():
            table.add_row(tenant_id, key)
        show(table)
    console.print(f"{len(rows):,} tenants loaded, {len(made):,} of them new" + (f"; keys in {keys}" if keys else ""))


@contextmanager
def _keys_file(path: Path) -> Iterator[TextIO]:
    """A new file that its owner alone can read, there before anything is published, gone if nothing is."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as exc:
        raise Misconfigured(f"--keys: {path} cannot be made ({exc.strerror}); nothing was published") from exc
    with os.fdopen(handle, "w", newline="") as file:
        try:
            yield file
        except TillstreamError:
            path.unlink()
            raise


@app.command("list")
def list_(as_json: Json = False, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Tenants, their limits and policies, and the ids of their keys."""
    known = sorted(tenants.read_all(running(data_dir)[0]).values(), key=lambda tenant: tenant.tenant_id)
    if as_json:
        print(json.dumps([tenants.shown(tenant) for tenant in known]))  # noqa: T201
        return
    show(listed(known, narrow=console.is_terminal))


def listed(known: Sequence[Tenant], *, narrow: bool) -> Table:
    """A line a tenant; where it must be narrow, without columns that nobody has anything in, and a key on its lines."""
    between = "\n" if narrow else " "
    columns = {
        "tenant": [tenant.tenant_id for tenant in known],
        "name": [tenant.name for tenant in known],
        "currency": [tenant.currency for tenant in known],
        "limits": [f",{between}".join(_limits(tenant)) for tenant in known],
        "policies": [_policies(tenant) for tenant in known],
        "keys": [
            f",{between}".join(between.join((key.key_id, *_ends(key.expires_at))) for key in tenant.keys)
            for tenant in known
        ],
    }
    shown = {name: cells for name, cells in columns.items() if any(cells) or not narrow}
    table = table_of(*shown, whole=("currency", "limits", "keys"))
    for cells in zip(*shown.values(), strict=True):
        table.add_row(*cells)
    return table


def _ends(at: int | None) -> tuple[str, ...]:
    return () if at is None else ("(revoked)",) if at <= now() else (f"(until {rfc3339(at)[:16]}Z)",)


def _limits(tenant: Tenant) -> list[str]:
    named = (("", tenant.limits.requests_per_minute), (" a product", tenant.limits.product_events_per_minute))
    return [f"{limit or 'no limit'}{of}" for of, limit in named if limit is not None]


def _policies(tenant: Tenant) -> str:
    totals = tenant.policies.order_totals
    said = [*tenant.policies.currencies, *([] if totals == ORDER_TOTALS[0] else [f"totals {totals}"])]
    return ", ".join((*said, *(["oversells"] if tenant.policies.oversell else [])))


@app.command()
def rotate(
    tenant_id: str,
    grace: Annotated[str, typer.Option(help="How long the old keys still work: 30m, 24h, 7d, or seconds.")] = "24h",
    as_json: Json = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Make a new API key; the others end after the grace period.

    [dim]tillstream tenants rotate acme --grace 24h[/dim]
    """
    seconds, key = _seconds(grace), ""

    def to(known: Tenant) -> Tenant:
        nonlocal key
        tenant, key = tenants.with_rotated_keys(known, seconds * 1_000_000)
        return tenant

    tenant = _change(data_dir, tenant_id, to)
    _show_key(tenant, key, as_json, f"the others end in {timedelta(seconds=seconds)}; new API key")


def _seconds(text: str) -> int:
    """A duration such as 24h. Raises Rejected."""
    if parsed := _DURATION.fullmatch(text.strip().lower()):
        seconds = round(timedelta(**{_UNITS[parsed[2]]: int(parsed[1])}).total_seconds()) if len(parsed[1]) < 9 else -1
        if 0 <= seconds <= MAX_GRACE_S:
            return seconds
    raise Rejected("bad_grace", f"--grace takes 30m, 24h, 7d or seconds, a year at most, not {text!r}")


@app.command()
def revoke(tenant_id: str, key_id: str, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """End an API key now, on every running gateway."""
    _change(data_dir, tenant_id, lambda known: tenants.with_revoked_key(known, key_id))
    console.print(f"{key_id} of {tenant_id} is revoked")


@app.command("set")
def set_(
    tenant_id: str,
    name: Annotated[str, typer.Option(help="Shown to people.")] = "",
    currency: Annotated[str, typer.Option(help="Of products that name none.")] = "",
    requests_per_minute: Annotated[
        str, typer.Option(metavar="N", help="Single events; 0 is no limit, or default.")
    ] = "",
    product_events_per_minute: Annotated[str, typer.Option(metavar="N", help="The same, of each product.")] = "",
    currencies: Annotated[str, typer.Option(help="Codes that rows may name: EUR,USD, or any.")] = "",
    order_totals: Annotated[str, typer.Option(help=f"{', '.join(ORDER_TOTALS)}: items against the total.")] = "",
    oversell: Annotated[
        bool | None, typer.Option("--oversell/--no-oversell", help="Whether stock may fall below zero.")
    ] = None,
    as_json: Json = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Change a tenant; what is not given stays.

    [dim]tillstream tenants set acme --requests-per-minute 1000 --currencies EUR,USD[/dim]
    """
    sells = "" if oversell is None else str(oversell)
    options = (name, currency, requests_per_minute, product_events_per_minute, currencies, order_totals, sells)
    said = {column: value for column, value in zip(tenant_files.COLUMNS[1:], options, strict=True) if value}
    if not said:
        raise Rejected("nothing_to_set", "say what to change; see: tillstream tenants set --help")
    given = tenant_files.given_of(said)
    tenant = _change(data_dir, tenant_id, lambda known: tenants.merged(known, given))
    if as_json:
        print(json.dumps(tenants.shown(tenant)))  # noqa: T201
    else:
        said_of = (tenant.name, tenant.currency, ", ".join(_limits(tenant)), _policies(tenant))
        console.print(f"{tenant_id}: {'; '.join(text for text in said_of if text)}")


def _change(data_dir: Path, tenant_id: str, to: Callable[[Tenant], Tenant]) -> Tenant:
    """Change a tenant that must exist."""

    def known(tenant: Tenant | None) -> Tenant:
        if tenant is None:
            raise Rejected("unknown_tenant", f"there is no tenant {tenant_id}; see: tillstream tenants list")
        return to(tenant)

    return tenants.change(running(data_dir)[0], tenant_id, known)


def _show_key(tenant: Tenant, key: str, as_json: bool, what: str, **more: Any) -> None:
    if as_json:
        shown = {"tenant_id": tenant.tenant_id, "key_id": tenant.keys[-1].key_id, "api_key": key, **more}
        print(json.dumps(shown))  # noqa: T201
    else:
        console.print(f"{tenant.tenant_id}: {what} [bold]{key}[/bold] (it is stored nowhere: keep it)", soft_wrap=True)
