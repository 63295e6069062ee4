"""`tillstream prices held`, `approve` and `reject`: prices that wait for somebody to decide."""

import asyncio
import getpass
from typing import Annotated, Any

import typer

from deploy import price_alerts
from deploy.as_tenant import ApiKey, Caller, GatewayUrl, Keys, TenantId, caller
from deploy.operate import DEFAULT_DATA_DIR, DataDir, Json, bars, errors, say, say_json
from deploy.price_view import show_held, verdict_line
from schemas.errors import Misconfigured

Alerts = list[dict[str, Any]]

Products = Annotated[list[str] | None, typer.Argument(metavar="PRODUCT...", help="Whose held prices.")]
OfMessage = Annotated[str | None, typer.Option("--event-id", help="All that are held of one message.")]
Every = Annotated[bool, typer.Option("--all", help="All that are held.")]
Reason = Annotated[str | None, typer.Option(help="For the history.")]
By = Annotated[str, typer.Option("--by", help="Who decides.", show_default="your login")]


def held(
    tenant_id: TenantId,
    product_id: Annotated[str | None, typer.Option(help="Only of this product.")] = None,
    api_key: ApiKey = "",
    keys: Keys = None,
    gateway_url: GatewayUrl = "",
    as_json: Json = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Prices that are held and wait for a decision, the newest first. With --json each is a line.

    [dim]tillstream prices held --tenant-id acme --api-key ts_...[/dim]
    """
    tenant = caller(tenant_id, api_key, keys, gateway_url, data_dir)
    waiting = asyncio.run(_held(tenant, [product_id]))
    if as_json:
        for alert in waiting:
            say_json(alert)
    elif waiting:
        show_held(waiting)
    else:
        say("nothing is held")


def approve(
    tenant_id: TenantId,
    product_ids: Products = None,
    event_id: OfMessage = None,
    every: Every = False,
    reason: Reason = None,
    decided_by: By = "",
    api_key: ApiKey = "",
    keys: Keys = None,
    gateway_url: GatewayUrl = "",
    as_json: Json = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Let held prices come in force: of products, of one message, or all.

    Where one of them is not held, or not any more, nothing is decided of any. Exit codes: 0 decided, 1 not held, or
    decided by somebody else meanwhile, 2 put it right first, 75 try again later.

    [dim]tillstream prices approve P-1 P-2 --reason "a sale" --tenant-id acme --api-key ts_...[/dim]

    [dim]tillstream prices approve --all --tenant-id acme --api-key ts_...[/dim]
    """
    tenant = caller(tenant_id, api_key, keys, gateway_url, data_dir)
    asyncio.run(_decide(tenant, "approve", product_ids or [], event_id, every, decided_by, reason, as_json))


def reject(
    tenant_id: TenantId,
    product_ids: Products = None,
    event_id: OfMessage = None,
    every: Every = False,
    reason: Reason = None,
    decided_by: By = "",
    api_key: ApiKey = "",
    keys: Keys = None,
    gateway_url: GatewayUrl = "",
    as_json: Json = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Drop held prices: of products, of one message, or all.

    Where one of them is not held, or not any more, nothing is decided of any. Exit codes: 0 decided, 1 not held, or
    decided by somebody else meanwhile, 2 put it right first, 75 try again later.

    [dim]tillstream prices reject P-1 --reason "a typo" --tenant-id acme --api-key ts_...[/dim]
    """
    tenant = caller(tenant_id, api_key, keys, gateway_url, data_dir)
    asyncio.run(_decide(tenant, "reject", product_ids or [], event_id, every, decided_by, reason, as_json))


async def _held(tenant: Caller, product_ids: list[str | None]) -> Alerts:
    """What is held of these products; of all where one is None."""
    async with tenant.gateway:
        return [alert for product_id in product_ids for alert in await price_alerts.held(tenant, product_id)]


async def _decide(
    tenant: Caller,
    decision: str,
    product_ids: list[str],
    event_id: str | None,
    every: bool,
    decided_by: str,
    reason: str | None,
    as_json: bool,
) -> None:
    if sum((bool(product_ids), event_id is not None, every)) != 1:
        raise Misconfigured("say which held prices: their products, --event-id of a message, or --all")
    waiting = await _held(tenant, list(dict.fromkeys(product_ids)) or [None])
    if event_id is not None:
        waiting = [alert for alert in waiting if alert["event_id"] == event_id]
    missing = set(product_ids) - {alert["product_id"] for alert in waiting}
    if missing or (event_id is not None and not waiting):
        say(f"nothing is held of {', '.join(sorted(missing)) or event_id}: nothing was decided", errors)
        raise typer.Exit(1)
    late = 0
    with bars() as progress:
        bar = progress.add_task("decisions", total=len(waiting))
        async with tenant.gateway:
            async for verdicts in price_alerts.decide(
                tenant, decision, waiting, decided_by or getpass.getuser(), reason
            ):
                for verdict in verdicts:
                    say_json(verdict) if as_json else say(verdict_line(verdict))
                late += sum(verdict["status"] == "superseded" for verdict in verdicts)
                progress.advance(bar, len(verdicts))
    if not waiting and not as_json:
        say("nothing is held")
    raise typer.Exit(int(bool(late)))
