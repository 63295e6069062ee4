"""Commands that work on a running installation: generate, ingest, audit.

They find the stack that `tillstream up` runs in `./.tillstream`; KAFKA_BOOTSTRAP_SERVERS and DATABASE_URL go before it.
"""

import asyncio
import json
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
from producers.generate import PRESETS
from producers.http import Answer, IngestClient
from schemas.errors import Rejected, TillstreamError
from schemas.rows import ENTITIES
from sinks.audit import OUTCOMES
from sinks.audit import audit as audit_

console = Console()
errors = Console(stderr=True)

DataDir = Annotated[
    Path,
    typer.Option(
        "--data-dir",
        "--stack-dir",
        envvar="TILLSTREAM_DATA_DIR",
        help="Where a stack keeps its data.",
        show_default=True,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
DEFAULT_DATA_DIR: Final = Path(".tillstream")
_SHOWN: Final = 10
"""Row errors shown after an ingest."""


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
    with bars() as progress:
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

    with file.open("rb") as lines, bars() as progress:
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


def bars() -> Progress:
    """Bars on stderr; none where that is no terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=errors, disable=not errors.is_terminal)
