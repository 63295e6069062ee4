"""`tillstream stock`: a file of movements to a gateway, one message after another, in the file's order."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote

import httpx
import msgspec
import typer
from msgspec import Struct

from deploy import ingest_keys
from deploy.as_tenant import saying
from deploy.operate import DEFAULT_DATA_DIR, DataDir, Json, bars, console, errors
from deploy.stack import running
from producers.calls import Patience
from producers.chunks import Chunk, Limits, Ndjson, Source
from producers.csv_rows import Csv
from producers.gateway import Gateway, key_header
from producers.http import Answer, chunk_answer
from schemas.errors import Misconfigured
from schemas.movements import MOVEMENT
from schemas.stock import OUTCOMES
from schemas.topics import MAX_MOVEMENTS

_LIMITS: Final = Limits(MAX_MOVEMENTS, 700_000)
"""Of a message; a row of CSV can be a little larger as Avro."""
_SHOWN: Final = 10
_line: Final = msgspec.json.Decoder(dict[str, Any])


class Told(Struct):
    """What became of movements: by the gateway (`accepted`, `refused`), and, where that was waited for, by streams."""

    accepted: int = 0
    refused: int = 0
    applied: int = 0
    superseded: int = 0
    duplicate: int = 0
    rejected: int = 0
    pending: int = 0

    def add(self, other: "Told") -> None:
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


Wrong = tuple[int, str]
"""A line of the body, and what is wrong with it."""


def stock(
    file: Annotated[Path, typer.Argument(help="NDJSON or CSV, with the fields of POST /stock-events.", exists=True)],
    tenant_id: Annotated[str, typer.Option(help="Whose stock.")],
    wait: Annotated[bool, typer.Option("--wait", help="For what becomes of each movement.")] = False,
    name: Annotated[
        str, typer.Option(help="A file sent again under it counts once.", show_default="a hash of the file")
    ] = "",
    patience: Annotated[float, typer.Option(min=1, help="Seconds without progress after which it gives up.")] = 600,
    keys: Annotated[Path | None, typer.Option(help="CSV with tenant_id,api_key.", exists=True, dir_okay=False)] = None,
    api_key: Annotated[str, typer.Option(envvar="TILLSTREAM_API_KEY", help="The tenant's.")] = "",
    gateway_url: Annotated[str, typer.Option(envvar="TILLSTREAM_GATEWAY_URL", help="By default the stack's.")] = "",
    as_json: Json = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Send a file of movements of stock; however it ends, the same command doubles nothing.

    Exit codes: 0 all were accepted, and with --wait none was rejected, 1 some were not, 2 put it right first, 75 try
    again later.

    [dim]tillstream stock deliveries.csv --tenant-id acme --api-key ts_... --wait[/dim]
    """
    key = ingest_keys.given(tenant_id, api_key, keys, None).get(tenant_id)
    if key is None:
        raise Misconfigured(f"no API key for {tenant_id}: give --api-key, or --keys FILE with tenant_id,api_key")
    gateway = Gateway(gateway_url or running(data_dir)[1], concurrency=1, patience=Patience(patience, saying()))
    path = f"/api/v1/tenants/{quote(tenant_id, safe='')}/stock-events" + ("?wait=30s" if wait else "")
    told = asyncio.run(_send(file, gateway, path, key_header(key), name or file_hash(file)))
    counts = {count: n for count, n in msgspec.structs.asdict(told).items() if wait or count in ("accepted", "refused")}
    if as_json:
        print(json.dumps(counts))  # noqa: T201
    else:
        console.print(", ".join(f"{count} {n:,}" for count, n in counts.items()), highlight=False)
    raise typer.Exit(int(bool(told.refused or told.rejected or told.pending)))


async def _send(file: Path, gateway: Gateway, path: str, auth: dict[str, str], name: str) -> Told:
    source = Csv(file, MOVEMENT) if file.suffix.lower() == ".csv" else Ndjson(file)
    total, shown = Told(), 0
    with bars() as progress:
        bar = progress.add_task("movements", total=None)
        async with gateway:
            async for chunk, answer in _answers(source, gateway, path, auth, name):
                told, wrong = _told(answer)
                total.add(told)
                for line, text in wrong[: max(0, _SHOWN - shown)]:
                    why = f"{file.name} line {source.line_of(chunk, line)}: {text}"
                    errors.print(why, markup=False, highlight=False, soft_wrap=True)
                shown += len(wrong)
                progress.advance(bar, told.accepted + told.refused)
    if shown > _SHOWN:
        errors.print(f"and {shown - _SHOWN:,} more", highlight=False)
    return total


async def _answers(
    source: Source, gateway: Gateway, path: str, auth: dict[str, str], name: str
) -> AsyncIterator[tuple[Chunk, httpx.Response]]:
    for chunk in source.chunks(_LIMITS, source.start):
        headers = auth | {"Idempotency-Key": f"{name}-{chunk.number}"}
        yield chunk, await gateway.send("POST", path, headers, partial(source.body, chunk))


def _told(said: httpx.Response) -> tuple[Told, list[Wrong]]:
    """Counts of an answer, of lines or of one document, and what it says is wrong. Raises Refused."""
    if not said.headers["content-type"].startswith("application/x-ndjson"):
        answer = chunk_answer(said)
        return Told(answer.accepted, answer.rejected), _refused(answer)
    first, *moved, last = map(_line.decode, said.content.splitlines())
    answer = msgspec.convert(first, Answer)
    counts = {outcome: last[outcome] for outcome in OUTCOMES}
    late = [(one["line"], f"{one['code']}, {one['detail']}") for one in moved if one["outcome"] == "rejected"]
    pending = answer.accepted - sum(counts.values())
    return Told(answer.accepted, answer.rejected, **counts, pending=pending), _refused(answer) + late


def _refused(answer: Answer) -> list[Wrong]:
    return [(error["line"], f"{error['pointer']} {error['code']}, {error['detail']}") for error in answer.errors]


def file_hash(file: Path) -> str:
    """What a file is known by: sent again, it is the same."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()[:32]
