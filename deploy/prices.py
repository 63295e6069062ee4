"""`tillstream prices`: changes with their verdicts, prices, alerts, limits, the policy, and what is held."""

import asyncio
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer

from deploy import price_alerts, price_files, price_view
from deploy.as_tenant import (
    ApiKey,
    Caller,
    GatewayUrl,
    Keys,
    PatienceS,
    TenantId,
    caller,
    segment,
)
from deploy.operate import DEFAULT_DATA_DIR, DataDir, Json, bars, errors, say, say_json
from deploy.price_holds import approve, held, reject
from deploy.price_policy import policy
from deploy.price_view import Told, alert_line, verdict_line
from deploy.stock import file_hash
from producers.calls import Refused
from schemas.errors import Misconfigured

app = typer.Typer(help="Prices: changes and their verdicts, alerts, limits, what is held.", no_args_is_help=True)
for command in (policy, held, approve, reject):
    app.command()(command)

_SHOWN: Final = 10
_NO_LIMIT: Final = ("none", "")

Product = Annotated[str, typer.Argument(help="The merchant's id of it.")]
OfProduct = Annotated[str | None, typer.Option("--product-id", help="Only of this product.")]


@app.command()
def change(
    product_id: Product,
    new_price: Annotated[str, typer.Argument(help="An amount, such as 12.50.")],
    tenant_id: TenantId,
    old_price: Annotated[str | None, typer.Option(help="What you take to be in force.")] = None,
    currency: Annotated[str | None, typer.Option(help="The tenant's where absent.")] = None,
    source: Annotated[str, typer.Option(help="Who changes it.")] = "cli",
    metadata: Annotated[str | None, typer.Option(metavar="JSON", help="Whatever else there is, an object.")] = None,
    api_key: ApiKey = "",
    keys: Keys = None,
    gateway_url: GatewayUrl = "",
    as_json: Json = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Change one price, and print the verdict.

    Exit codes: 0 the price is in force, 1 it is not (refused, held, rejected, superseded), 2 put it right first, 75 try
    again later.

    [dim]tillstream prices change P-1 12.50 --old-price 11.90 --tenant-id acme --api-key ts_...[/dim]
    """
    given = {"old_price": old_price, "currency": currency, "metadata": _metadata(metadata)}
    document = {"new_price": new_price, "source": source} | {k: v for k, v in given.items() if v is not None}
    tenant = caller(tenant_id, api_key, keys, gateway_url, data_dir)
    answer, verdicts, summary = asyncio.run(
        _told(tenant, "POST", f"products/{segment(product_id)}/price-event", document)
    )
    told = Told()
    told.add(answer.accepted, answer.rejected, verdicts, summary)
    for error in answer.errors:
        say(f"{error['pointer']} {error['code']}, {error['detail']}", errors)
    for verdict in verdicts:
        say_json(verdict) if as_json else say(verdict_line(verdict))
    if answer.accepted and not verdicts:
        say(summary["detail"] or "no verdict in time", errors)
    raise typer.Exit(0 if told.all_in_force else 1)


def _metadata(text: str | None) -> Any:
    try:
        return None if text is None else msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError as exc:
        raise Misconfigured(f"--metadata takes a JSON object: {exc}") from exc


async def _told(tenant: Caller, method: str, path: str, document: Any) -> price_files.Lines:
    async with tenant.gateway:
        return price_files.read(await tenant.told(method, path, document))


@app.command()
def send(
    file: Annotated[Path, typer.Argument(help="NDJSON or CSV, with the fields of POST /price-events.", exists=True)],
    tenant_id: TenantId,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show every verdict, not only ten that matter.")] = False,
    name: Annotated[
        str, typer.Option(help="A file sent again under it counts once.", show_default="a hash of the file")
    ] = "",
    patience: PatienceS = 600,
    api_key: ApiKey = "",
    keys: Keys = None,
    gateway_url: GatewayUrl = "",
    as_json: Json = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Send a file of changes of prices in its order, and print what became of them; again, it doubles nothing.

    With --json each verdict is a line, and the counts are the last. Exit codes: 0 every price is in force, 1 some are
    not (refused, held, rejected, superseded), 2 put it right first, 75 try again later.

    [dim]tillstream prices send prices.csv --tenant-id acme --api-key ts_...[/dim]
    """
    tenant = caller(tenant_id, api_key, keys, gateway_url, data_dir, patience)
    told = asyncio.run(_send(tenant, file, name or file_hash(file), verbose=verbose, as_json=as_json))
    if as_json:
        say_json({"type": "summary", **told.counts()})
    else:
        say(", ".join(f"{count} {n:,}" for count, n in told.counts().items()))
    raise typer.Exit(0 if told.all_in_force else 1)


async def _send(tenant: Caller, file: Path, name: str, *, verbose: bool, as_json: bool) -> Told:
    source, told, shown = price_files.source_of(file), Told(), 0
    with bars() as progress:
        bar = progress.add_task("prices", total=None)
        async with tenant.gateway:
            async for chunk, (answer, verdicts, summary) in price_files.sent(tenant, source, name):
                told.add(answer.accepted, answer.rejected, verdicts, summary)
                wrong = [
                    (error["line"], f"{error['pointer']} {error['code']}, {error['detail']}") for error in answer.errors
                ]
                notable = [line for line in verdicts if verbose or line["status"] not in ("accepted", "superseded")]
                wrong += [(line["line"], verdict_line(line)) for line in ([] if as_json else notable)]
                for line, text in sorted(wrong)[: None if verbose else max(0, _SHOWN - shown)]:
                    where = f"{file.name} line {source.line_of(chunk, line)}: {text}"
                    say(where, errors)
                shown += len(wrong)
                for verdict in verdicts if as_json else ():
                    say_json(verdict)
                progress.advance(bar, answer.accepted + answer.rejected)
    if shown > _SHOWN and not verbose:
        errors.print(f"and {shown - _SHOWN:,} more; --verbose shows them all", highlight=False)
    return told


@app.command()
def show(
    product_id: Product,
    tenant_id: TenantId,
    api_key: ApiKey = "",
    keys: Keys = None,
    gateway_url: GatewayUrl = "",
    as_json: Json = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """A product's price, its limits, and the last changes of it. Exits 2 for a product without any.

    [dim]tillstream prices show P-1 --tenant-id acme --api-key ts_...[/dim]
    """
    price = asyncio.run(_price(caller(tenant_id, api_key, keys, gateway_url, data_dir), product_id))
    say_json(price) if as_json else price_view.show_price(price)


async def _price(tenant: Caller, product_id: str) -> dict[str, Any]:
    async with tenant.gateway:
        return await tenant.get(f"prices/{segment(product_id)}")


@app.command()
def limits(
    product_id: Product,
    tenant_id: TenantId,
    floor: Annotated[str | None, typer.Option(metavar="AMOUNT", help="The least price, or none.")] = None,
    ceiling: Annotated[str | None, typer.Option(metavar="AMOUNT", help="The highest price, or none.")] = None,
    api_key: ApiKey = "",
    keys: Keys = None,
    gateway_url: GatewayUrl = "",
    as_json: Json = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Show a product's floor and ceiling, or set those that are given; the other stays as it is.

    [dim]tillstream prices limits P-1 --floor 8.50 --ceiling none --tenant-id acme --api-key ts_...[/dim]
    """
    tenant = caller(tenant_id, api_key, keys, gateway_url, data_dir)
    said = asyncio.run(_limits(tenant, product_id, floor, ceiling))
    say_json(said) if as_json else say(f"{product_id}{price_view.limits_text(said) or ': no limits'}")


async def _limits(tenant: Caller, product_id: str, floor: str | None, ceiling: str | None) -> dict[str, Any]:
    path = segment(product_id)
    async with tenant.gateway:
        try:
            known = await tenant.get(f"prices/{path}")
        except Refused as exc:
            if exc.code != "not_found":
                raise
            known = {"floor": None, "ceiling": None}
        said = {name: known[name] for name in ("floor", "ceiling")}
        given = {"floor": floor, "ceiling": ceiling}
        said |= {name: None if text in _NO_LIMIT else text for name, text in given.items() if text is not None}
        if floor is not None or ceiling is not None:
            price_files.read(await tenant.told("PUT", f"products/{path}/price-limits", said))
        return {"product_id": product_id, **said}


@app.command()
def alerts(
    tenant_id: TenantId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Print those that come, until Ctrl-C.")] = False,
    product_id: OfProduct = None,
    finding: Annotated[str | None, typer.Option("--name", help="With one of these findings: jump,bounds.")] = None,
    status: Annotated[str | None, typer.Option(help="anomaly, held, rejected, or several of them.")] = None,
    min_score: Annotated[int | None, typer.Option(min=0, max=100, help="With a finding of at least it.")] = None,
    since: Annotated[str | None, typer.Option("--from", help="Of this moment (RFC 3339, or a date) and later.")] = None,
    until: Annotated[str | None, typer.Option("--to", help="Before this moment.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="So many at most; --follow ends after them.", show_default="50")
    ] = None,
    last_event_id: Annotated[
        str, typer.Option(help="With --follow, begin after this, which an earlier run named.")
    ] = "",
    patience: PatienceS = 600,
    api_key: ApiKey = "",
    keys: Keys = None,
    gateway_url: GatewayUrl = "",
    as_json: Json = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Alerts on prices: the last ones, the newest first, or with --follow those that come, each once.

    When it ends, --follow names the position to go on from. With --json each alert is a line.

    [dim]tillstream prices alerts --follow --status held,rejected --tenant-id acme --api-key ts_...[/dim]
    """
    filters = {
        "product_id": product_id, "name": finding, "status": status, "min_score": min_score, "from": since, "to": until,
    }  # fmt: skip
    tenant = caller(tenant_id, api_key, keys, gateway_url, data_dir, patience if follow else None)
    if follow:
        asyncio.run(_follow(tenant, filters, last_event_id, limit, as_json=as_json))
        return
    for alert in asyncio.run(_alerts(tenant, filters, limit or 50)):
        say_json(alert) if as_json else say(alert_line(alert))


async def _alerts(tenant: Caller, filters: dict[str, Any], limit: int) -> list[dict[str, Any]]:
    async with tenant.gateway:
        return await tenant.pages("price-alerts", limit, **filters)


async def _follow(
    tenant: Caller, filters: dict[str, Any], last_event_id: str, limit: int | None, *, as_json: bool
) -> None:
    follower, seen = price_alerts.Follower(tenant, filters, last_event_id), 0
    try:
        async with tenant.gateway:
            async for alert in follower.alerts():
                say_json(alert) if as_json else say(alert_line(alert))
                seen += 1
                if seen == limit:
                    return
    finally:
        if follower.last_event_id:
            errors.print(f"go on with --last-event-id {follower.last_event_id}", highlight=False)
