"""`tillstream uploads`: how far an upload is, the rows of it that were refused, and their correction."""

import asyncio
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Final

import typer
from msgspec import convert

from deploy.as_tenant import PATIENCE_S, ApiKey, Caller, GatewayUrl, Keys, PatienceS, TenantId, caller
from deploy.operate import DEFAULT_DATA_DIR, DataDir, Json, bars, errors, say, say_json
from producers.calls import Patience, Refused, accepted, problem
from producers.chunks import Limits, Ndjson
from producers.http import Answer
from schemas.errors import Unavailable

app = typer.Typer(help="Uploads: their state, the rows that were refused, corrections.", no_args_is_help=True)

_LIMITS: Final = Limits(lines=2_000)
_SHOWN: Final = 10
_LOOK_S: Final = 0.5

Token = Annotated[str, typer.Argument(help="Of the upload, as its opening answered it.")]


@app.command("show")
def show_(
    token: Token,
    tenant_id: TenantId,
    api_key: ApiKey = "",
    keys: Keys = None,
    gateway_url: GatewayUrl = "",
    as_json: Json = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """How far an upload is. Exits 1 while rows of it are refused and not corrected.

    [dim]tillstream uploads show TOKEN --tenant-id acme --api-key ts_...[/dim]
    """
    state = asyncio.run(_state(caller(tenant_id, api_key, keys, gateway_url, data_dir), token))
    _show_state(state, as_json=as_json)
    raise typer.Exit(int(bool(state["rows"]["rejected"] or state["rows"]["conflict"])))


async def _state(tenant: Caller, token: str) -> dict[str, Any]:
    async with tenant.gateway:
        return await tenant.get(f"uploads/{token}")


@app.command("errors")
def errors_(
    token: Token,
    tenant_id: TenantId,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file, in place of stdout.")] = None,
    api_key: ApiKey = "",
    keys: Keys = None,
    gateway_url: GatewayUrl = "",
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """The rows of an upload that were refused, a line of JSON each: put each `row` right, and send them back.

    [dim]tillstream uploads errors TOKEN -o refused.ndjson --tenant-id acme --api-key ts_...[/dim]

    [dim]tillstream uploads correct TOKEN refused.ndjson --wait --tenant-id acme --api-key ts_...[/dim]
    """
    tenant = caller(tenant_id, api_key, keys, gateway_url, data_dir)
    if output is None:
        count = asyncio.run(_errors(tenant, token, sys.stdout.buffer))
    else:
        with output.open("wb") as file:
            count = asyncio.run(_errors(tenant, token, file))
    errors.print(f"{count:,} refused rows", highlight=False)


async def _errors(tenant: Caller, token: str, out: BinaryIO) -> int:
    async with tenant.gateway:  # read whole, since an answer that breaks off must be asked for again
        answer = await tenant.gateway.call("GET", tenant.url(f"uploads/{token}/errors"), tenant.auth)
    if not answer.is_success:
        raise Refused(answer.status_code, problem(answer))
    out.write(answer.content)
    out.flush()
    return answer.content.count(b"\n")


@app.command()
def correct(
    token: Token,
    file: Annotated[Path, typer.Argument(help="NDJSON: lines of the errors, their rows put right.", exists=True)],
    tenant_id: TenantId,
    wait: Annotated[bool, typer.Option("--wait", help="Until it is known what became of each row.")] = False,
    patience: PatienceS = PATIENCE_S,
    api_key: ApiKey = "",
    keys: Keys = None,
    gateway_url: GatewayUrl = "",
    as_json: Json = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Send corrected rows in place of those that were refused; again, it doubles nothing.

    Exit codes: 0 all were taken, and with --wait none is refused any more, 1 some were not, 2 put it right first,
    75 try again later.

    [dim]tillstream uploads correct TOKEN refused.ndjson --wait --tenant-id acme --api-key ts_...[/dim]
    """
    tenant = caller(tenant_id, api_key, keys, gateway_url, data_dir, patience)
    counts, state = asyncio.run(_correct(tenant, token, file, wait=wait, patience=patience))
    if as_json:
        say_json(counts | ({"upload": state} if state else {}))
    else:
        say(", ".join(f"{name} {count:,}" for name, count in counts.items()))
        if state:
            _show_state(state, as_json=False)
    left = state is not None and (state["rows"]["rejected"] or state["rows"]["conflict"])
    raise typer.Exit(int(bool(counts["refused"] or left)))


async def _correct(
    tenant: Caller, token: str, file: Path, *, wait: bool, patience: float
) -> tuple[dict[str, int], dict[str, Any] | None]:
    source, counts, shown = Ndjson(file), {"accepted": 0, "repeated": 0, "refused": 0}, 0
    taken: list[str] = []
    async with tenant.gateway:
        with bars() as progress:
            bar = progress.add_task("corrections", total=None)
            for chunk in source.chunks(_LIMITS, source.start):
                path = tenant.url(f"uploads/{token}/corrections")
                document = accepted(await tenant.gateway.send("POST", path, tenant.auth, partial(source.body, chunk)))
                said = convert(document, Answer)
                taken += said.event_ids
                counts["accepted"] += said.accepted
                counts["repeated"] += document["repeated"]
                counts["refused"] += said.rejected
                for error in said.errors[: max(0, _SHOWN - shown)]:
                    where = f"{file.name} line {source.line_of(chunk, error['line'])}: {error['pointer']}"
                    text = f"{where} {error['code']}, {error['detail']}"
                    say(text, errors)
                shown += len(said.errors) + said.errors_omitted
                progress.advance(bar, chunk.rows)
        if shown > _SHOWN:
            errors.print(f"and {shown - _SHOWN:,} more", highlight=False)
        return counts, await _settled(tenant, token, taken, Patience(patience)) if wait else None


async def _settled(tenant: Caller, token: str, event_ids: list[str], patience: Patience) -> dict[str, Any]:
    """The upload's state once all corrections are in the ledger; a tenant's are applied in their order."""
    while event_ids and (await tenant.get(f"events/{event_ids[-1]}"))["status"] == "pending":
        if patience.left <= 0:
            raise Unavailable(f"not applied within {patience.seconds:.0f} s; do the sinks run?")
        await asyncio.sleep(_LOOK_S)
    return await tenant.get(f"uploads/{token}")


def _show_state(state: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        say_json(state)
        return
    chunks, rows = state["chunks"], state["rows"]
    of = "" if chunks["declared"] is None else f" of {chunks['declared']:,}"
    say(f"{state['name'] or state['upload_id']}: {state['state'].replace('_', ' ')}, {chunks['applied']:,}{of} chunks")
    say(", ".join(f"{name} {count:,}" for name, count in rows.items()))
