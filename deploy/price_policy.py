"""`tillstream prices policy`: which changes of a tenant's prices are normal, and what is done about others.

As `tillstream tenants`, it talks to Kafka, not to a gateway.
"""

from typing import Annotated, Any, Final

import typer
from msgspec.structs import asdict

from deploy.as_tenant import TenantId
from deploy.operate import DEFAULT_DATA_DIR, DataDir, Json, say_json, show, table_of
from deploy.stack import running
from producers import tenants
from producers.tenant import PricePolicy
from producers.tenants import Tenant
from schemas.errors import Rejected
from schemas.prices import ACTIONS, POLICY_RANGES, Action

_DEFAULT: Final = "default"


def policy(
    tenant_id: TenantId,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=N", help=f"{', '.join(POLICY_RANGES)}; N may be default. Repeatable."),
    ] = None,
    actions: Annotated[
        list[str] | None,
        typer.Option(
            "--action",
            metavar="FINDING=ACTION",
            help=f"{', '.join(ACTIONS)}; {', '.join(Action)} or default. Repeatable.",
        ),
    ] = None,
    as_json: Json = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Show a tenant's policy on prices, or change what is given; it holds for changes that come later.

    [dim]tillstream prices policy --tenant-id acme --set max_decrease_percent=50 --action bounds=hold[/dim]
    """
    connected = running(data_dir)[0]
    given = _numbers(settings or []) | ({"actions": _actions(actions)} if actions else {})
    if given:
        tenant = tenants.change(connected, tenant_id, lambda known: _changed(known, tenant_id, given))
    else:
        tenant = _known(tenants.read_all(connected).get(tenant_id), tenant_id)
    _show(tenant.policies.prices, as_json=as_json)


def _changed(known: Tenant | None, tenant_id: str, given: dict[str, Any]) -> Tenant:
    return tenants.merged(_known(known, tenant_id), {"policies": {"prices": given}})


def _known(tenant: Tenant | None, tenant_id: str) -> Tenant:
    if tenant is None:
        raise Rejected("unknown_tenant", f"there is no tenant {tenant_id}; see: tillstream tenants list")
    return tenant


def _numbers(said: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for text in said:
        name, _, value = text.partition("=")
        if name not in POLICY_RANGES or not (value == _DEFAULT or value.removeprefix("-").isdecimal()):
            raise Rejected("bad_price_policy", f"--set takes NAME=N of {', '.join(POLICY_RANGES)}, not {text!r}")
        found[name] = None if value == _DEFAULT else int(value)
    return found


def _actions(said: list[str]) -> dict[str, str | None]:
    parted = [text.partition("=") for text in said]
    return {finding: None if action == _DEFAULT else action for finding, _, action in parted}


def _show(policy: PricePolicy, *, as_json: bool) -> None:
    """Every setting, and what is done about every finding."""
    actions = {str(finding): policy.actions.get(finding, str(usual)) for finding, usual in ACTIONS.items()}
    numbers = {name: value for name, value in asdict(policy).items() if name != "actions"}
    if as_json:
        say_json(numbers | {"actions": actions})
        return
    table, usual = table_of("setting", "value", ""), asdict(PricePolicy())
    for name, value in numbers.items():
        table.add_row(name, "none" if value is None else str(value), "default" if value == usual[name] else "")
    for finding, action in actions.items():
        table.add_row(f"action on {finding}", action, "" if finding in policy.actions else "default")
    show(table)
