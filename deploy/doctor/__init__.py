"""`tillstream doctor`: what is wrong with an installation, and what to do about it."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Final

import typer
from rich.markup import escape

from deploy.doctor import kafka, lag, machine, postgresql, processes
from deploy.doctor.finding import Finding, Level
from deploy.operate import DEFAULT_DATA_DIR, DataDir, Json, console
from deploy.stack import running
from schemas.settings import Settings

_MARKS: Final = {Level.OK: "[green]ok  [/green]", Level.WARN: "[yellow]warn[/yellow]", Level.FAIL: "[red]fail[/red]"}


def doctor(as_json: Json = False, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Look at everything that an installation needs, and say of each fault what to do.

    Kafka, topics, PostgreSQL, roles, migrations, isolation, clocks, versions, processes, lag. It changes nothing. Exit
    codes: 0 nothing is wrong (warnings may be), 1 something is, 2 it cannot tell which installation is meant.

    [dim]tillstream doctor[/dim]

    [dim]KAFKA_BOOTSTRAP_SERVERS=k1:9092 DATABASE_URL=postgresql://... tillstream doctor --json[/dim]
    """
    settings, gateway_url = running(data_dir)
    found: list[Finding] = []
    for finding in _examination(settings, gateway_url, data_dir):
        found.append(finding)
        if not as_json:
            _show(finding)
    if as_json:
        print(json.dumps([asdict(finding) for finding in found]))  # noqa: T201
    else:
        wrong, odd = (sum(finding.level is level for finding in found) for level in (Level.FAIL, Level.WARN))
        said = "nothing is wrong" if not wrong else f"{wrong} {'thing is' if wrong == 1 else 'things are'} wrong"
        console.print(said + (f", {odd} to look at" if odd else ""), style="bold", highlight=False)
    if any(finding.level is Level.FAIL for finding in found):
        raise typer.Exit(1)


def _examination(settings: Settings, gateway_url: str, data_dir: Path) -> Iterator[Finding]:
    yield from machine.look(data_dir)
    stores = []
    for finding in chain(kafka.look(settings), postgresql.look(settings)):
        stores.append(finding)
        yield finding
    yield from processes.look(settings, gateway_url, data_dir)
    if all(finding.level is not Level.FAIL for finding in stores):
        yield from lag.look(settings)


def _show(finding: Finding) -> None:
    line = f"{_MARKS[finding.level]}  {finding.what:<13} {escape(finding.found)}"
    console.print(line, highlight=False, soft_wrap=True)
    if finding.remedy:
        console.print(f"{'':19} [bold]→[/bold] {escape(finding.remedy)}", highlight=False, soft_wrap=True)
