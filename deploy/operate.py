"""Commands that work on a running installation: audit, and what they share.

They find the stack that `tillstream up` runs in `./.tillstream`; KAFKA_BOOTSTRAP_SERVERS and DATABASE_URL go before it.
"""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from deploy.stack import running
from sinks.audit import OUTCOMES, Report
from sinks.audit import audit as audit_

console = Console()
if not console.is_terminal:
    console.width = 10_000  # of a file or a pipe: a table takes what it needs, and nothing is cut
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
_GAP: Final = 2
_LEAST: Final = 8
"""Columns of a terminal for cells that go on in a next line."""
DEFAULT_DATA_DIR: Final = Path(".tillstream")


def audit(
    wait: Annotated[float, typer.Option(help="Seconds to wait until nothing is in flight.")] = 0.0,
    as_json: Json = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Compare the log with the ledger: accepted - sum of outcomes = in flight.

    Lost is what sinks have passed without a line in the ledger. Exits 1 when something is lost or the ledger
    contradicts the log, or when --wait has passed and rows are still in flight.
    """
    report = audit_(running(data_dir)[0], wait_s=wait)
    if as_json:
        listed = {
            t: {"accepted": v.accepted, **v.outcomes, "in_flight": v.in_flight, "lost": v.lost}
            for t, v in report.tenants.items()
        }
        said = {"tenants": listed, "missing": report.missing, "lost": report.lost, "wrong": report.wrong}
        print(json.dumps(said))  # noqa: T201
    else:
        show(accounts(report, narrow=console.is_terminal))
        for line in (*report.wrong, *report.lost, *(report.missing if wait and not report.lost else ())):
            console.print(line, style="red", markup=False, highlight=False, soft_wrap=True)
    if report.broken or (wait and not report.drained):
        raise typer.Exit(1)


def accounts(report: Report, *, narrow: bool) -> Table:
    """A line a tenant; where that must be narrow, without the outcomes that no row had."""
    tallies = report.tenants.values()
    shown = [
        name for name in OUTCOMES
        if name == "applied" or not narrow or any(tally.outcomes[name] for tally in tallies)
    ]  # fmt: skip
    lost = any(tally.lost for tally in tallies)
    names = ("accepted", *shown, "in flight", *(["lost"] if lost else []))
    table = table_of("tenant", *names, whole=names)
    for tenant_id, tally in sorted(report.tenants.items()):
        counts = (
            tally.accepted,
            *(tally.outcomes[name] for name in shown),
            tally.in_flight,
            *([tally.lost] if lost else []),
        )
        table.add_row(tenant_id, *(f"{count:,}" for count in counts))
    return table


def table_of(*names: str, whole: Collection[str] = ()) -> Table:
    """A table with these columns; where a terminal is too narrow its cells go on in a next line, save those of `whole`.

    Those are numbers and times, which would read as others then.
    """
    table = Table(box=None, padding=(0, _GAP, 0, 0), collapse_padding=True)
    for name in names:
        table.add_column(name, overflow="fold", no_wrap=name in whole)
    return table


def show(table: Table, to: Console = console) -> None:
    """Print a table whose cells are text as it is, whatever brackets a stranger put into it.

    It is wider than the terminal where columns that are whole need it: a number is never cut.
    """
    least = sum(_widest(column) + _GAP if column.no_wrap else _LEAST for column in table.columns)
    table.width = least if least > to.width else None
    to.print(table, markup=False, highlight=False, crop=False)


def _widest(column: Column) -> int:
    return max(cell_len(line) for cell in (column.header, *column.cells) for line in str(cell).split("\n"))


def say(text: str, to: Console = console) -> None:
    """Print a line as it is, whole, whatever brackets a stranger put into it."""
    to.print(text, markup=False, highlight=False, soft_wrap=True)


def say_json(document: Any) -> None:
    """Print a line of JSON."""
    print(json.dumps(document), flush=True)  # noqa: T201


def bars() -> Progress:
    """Bars on stderr; none where that is no terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=errors, disable=not errors.is_terminal)
