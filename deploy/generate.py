"""`tillstream generate`: seeded files of several tenants, for `tillstream ingest` and for trying things out."""

import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from deploy.operate import bars
from producers import datasets
from producers.datasets import Written
from producers.generate import PRESETS, Plan
from schemas.errors import Rejected

console = Console()


def generate(
    directory: Annotated[Path, typer.Argument(metavar="OUT", help="The folder for the files.")],
    preset: Annotated[str, typer.Option(help=f"How much: {', '.join(PRESETS)}.")] = "small",
    tenants: Annotated[int | None, typer.Option(min=1, help="Instead of the preset's number.")] = None,
    products_per_tenant: Annotated[int | None, typer.Option(min=1, help="Instead of the preset's.")] = None,
    orders_per_tenant: Annotated[int | None, typer.Option(min=1, help="Instead of the preset's.")] = None,
    chunk_size: Annotated[int | None, typer.Option(min=1, help="Rows a write; the data stay the same.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed makes the same files, everywhere.")] = 7,
) -> None:
    """Write seeded NDJSON files: customers, products, orders, stock and price events of several tenants.

    [dim]tillstream generate ./data --preset medium --tenants 2[/dim]
    """
    if preset not in PRESETS:
        raise Rejected("unknown_preset", f"--preset takes {', '.join(PRESETS)}")
    numbers = {
        "tenants": tenants,
        "products_per_tenant": products_per_tenant,
        "orders_per_tenant": orders_per_tenant,
        "chunk_size": chunk_size,
    }
    given = {name: number for name, number in numbers.items() if number is not None}
    plan = replace(PRESETS[preset], seed=seed, **given)
    started = time.perf_counter()
    written = _write(plan, directory)
    _print(written, directory, time.perf_counter() - started)


def _write(plan: Plan, directory: Path) -> list[Written]:
    with bars() as progress:
        bar = progress.add_task("rows", total=plan.total_rows)
        return datasets.write(plan, directory, lambda file, rows: progress.update(bar, description=file, advance=rows))


def _print(written: list[Written], directory: Path, seconds: float) -> None:
    files, rows, sizes = Counter[str](), Counter[str](), Counter[str]()
    for file in written:
        kind = Path(file.file).name
        files[kind] += 1
        rows[kind] += file.rows
        sizes[kind] += file.bytes
    table = Table("", "files", "rows", "MB", title=str(directory), title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for kind in files:
        table.add_row(kind, f"{files[kind]:,}", f"{rows[kind]:,}", f"{sizes[kind] / 1e6:,.1f}")
    table.add_section()
    table.add_row("all", f"{files.total():,}", f"{rows.total():,}", f"{sizes.total() / 1e6:,.1f}")
    console.print(table)
    console.print(f"{rows.total():,} rows in {seconds:.1f} s, {rows.total() / seconds:,.0f} rows/s", highlight=False)
