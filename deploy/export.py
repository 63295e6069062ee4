"""`tillstream export`: asks for a file of records, waits until it is written, loads it, and proves it whole.

How far it is stands beside the file, so that the same command goes on wherever the one before was ended.
"""

import asyncio
import secrets
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import msgspec
import typer
from msgspec import Struct
from rich.progress import Progress, TaskID

from deploy.as_tenant import PATIENCE_S, ApiKey, Caller, GatewayUrl, Keys, PatienceS, caller
from deploy.operate import DEFAULT_DATA_DIR, DataDir, Json, bars, errors, say, say_json
from producers.calls import Patience, Refused, accepted
from producers.downloads import download
from schemas.errors import Misconfigured, Rejected, Unavailable
from schemas.exports import FORMATS

_LOOK_S: Final = 0.5


class Asked(Struct):
    """What a command asked for, under which Idempotency-Key, and by whom: kept beside the file until it is there."""

    url: str
    document: dict[str, Any]
    key: str


def export(
    entity: Annotated[str, typer.Argument(help="customers, products, orders or stock.")],
    tenant_id: Annotated[
        str, typer.Option("--tenant-id", "--tenant", envvar="TILLSTREAM_TENANT_ID", help="The tenant.")
    ],
    format_: Annotated[str, typer.Option("--format", help=f"{' or '.join(FORMATS)}.")] = "csv",
    gzip: Annotated[bool, typer.Option("--gzip", help="A compressed file.")] = False,
    filters: Annotated[
        list[str] | None, typer.Option("--filter", help="NAME=VALUE, as the list takes it; repeatable.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file; one that is there is replaced.", show_default="ENTITY.FORMAT"),
    ] = None,
    patience: PatienceS = PATIENCE_S,
    api_key: ApiKey = "",
    keys: Keys = None,
    gateway_url: GatewayUrl = "",
    as_json: Json = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Export a tenant's records to a file. However it ends, the same command goes on where it was.

    Exit codes: 0 the file is there and whole, 1 the export failed, 2 put it right first, 75 try again later.

    [dim]tillstream export orders --tenant acme --api-key ts_... --filter status=paid --gzip -o paid.csv.gz[/dim]
    """
    path = _file(output or Path(f"{entity}.{format_}{'.gz' if gzip else ''}"))
    document = {"entity": entity, "format": format_, "gzip": gzip, "filters": _filters(filters or [])}
    tenant = caller(tenant_id, api_key, keys, gateway_url, data_dir, patience)
    state = asyncio.run(_export(tenant, document, path, patience))
    if as_json:
        say_json(state | {"file": str(path)})
    elif state["state"] == "done":
        say(f"{path}: {state['rows_done']:,} rows, {state['bytes']:,} bytes, SHA-256 {state['sha256']}")
    if state["state"] != "done":
        say(
            f"the export {state['state']}: {state['reason']}"
            if state["reason"]
            else f"the export was {state['state']}",
            errors,
        )
        raise typer.Exit(1)


def _file(path: Path) -> Path:
    """Where to write, behind any links. Raises Misconfigured before anything is asked for.

    The file takes the place of what is there: a device or a pipe would be gone.
    """
    path = path.resolve()
    if path.exists() and not path.is_file():
        raise Misconfigured(f"{path} is no file, and an export would take its place: name a file with --output")
    if not path.parent.is_dir():
        raise Misconfigured(f"there is no folder {path.parent}")
    return path


def _filters(given: list[str]) -> dict[str, list[str]]:
    named: dict[str, list[str]] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals:
            raise Misconfigured(f"--filter takes NAME=VALUE, not {each!r}")
        named.setdefault(name, []).append(value)
    return named


async def _export(tenant: Caller, document: dict[str, Any], path: Path, patience: float) -> dict[str, Any]:
    note, part = (path.with_name(f"{path.name}.{suffix}") for suffix in ("export", "part"))
    asked = _before(note, tenant, document) or _noted(note, part, tenant, document)
    async with tenant.gateway:
        with bars() as progress:
            try:
                state = await _ask(tenant, asked)
            except Rejected:
                note.unlink()  # asked again as it is, it would be refused again
                raise
            if state["state"] in (
                "failed",
                "cancelled",
                "expired",
            ):  # of the command before: another time may do better
                state = await _ask(tenant, _noted(note, part, tenant, document))
            state = await _written(tenant, state, progress, Patience(patience))
            if state["state"] == "done":
                bar = progress.add_task("bytes", total=state["bytes"])
                url = tenant.url(f"exports/{state['export_id']}/file")
                try:
                    await download(
                        tenant.gateway, url, tenant.auth, part, state["bytes"], state["sha256"],
                        lambda have: progress.update(bar, completed=have), Patience(patience),
                    )  # fmt: skip
                except Refused as exc:
                    if exc.status == httpx.codes.GONE:  # the same command asks for another
                        note.unlink()
                    raise
                part.replace(path)
    note.unlink(missing_ok=True)
    return state


def _before(note: Path, tenant: Caller, document: dict[str, Any]) -> Asked | None:
    """What the command before asked for, where it was the same and did not end well."""
    try:
        known = msgspec.json.decode(note.read_bytes(), type=Asked)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
    return known if (known.url, known.document) == (tenant.gateway.url + tenant.base, document) else None


def _noted(note: Path, part: Path, tenant: Caller, document: dict[str, Any]) -> Asked:
    """Another asking, which stands beside the file before it is used."""
    asked = Asked(tenant.gateway.url + tenant.base, document, secrets.token_urlsafe(18))
    part.unlink(missing_ok=True)
    note.write_bytes(msgspec.json.encode(asked))
    return asked


async def _ask(tenant: Caller, asked: Asked) -> dict[str, Any]:
    """How far the export is; one that was asked for before is the same."""
    answer = await tenant.gateway.call(
        "POST", tenant.url("exports"), tenant.auth, asked.document, Idempotency_Key=asked.key
    )
    return accepted(answer)


async def _written(tenant: Caller, state: dict[str, Any], progress: Progress, patience: Patience) -> dict[str, Any]:
    """The state once the file is written, or will not be."""
    bar: TaskID = progress.add_task("rows", total=None)
    seen: tuple[Any, ...] = ()
    while state["state"] in ("queued", "running"):
        if (now := (state["state"], state.get("rows_done"), state.get("attempts"))) != seen:
            seen = now
            patience.progress()
        elif patience.left <= 0:
            raise Unavailable(
                f"{state['state']} for {patience.seconds:.0f} s: others' exports come first, or no sink runs. The same"
                " command goes on, and --patience waits for longer"
            )
        progress.update(bar, completed=state.get("rows_done") or 0, total=state.get("rows_total"))
        await asyncio.sleep(_LOOK_S)
        state = await tenant.get(f"exports/{state['export_id']}")
    progress.update(bar, completed=state["rows_done"], total=state["rows_total"])
    return state
