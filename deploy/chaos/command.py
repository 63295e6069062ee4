"""`tillstream chaos`: a run or a check of an old one, what is going on meanwhile, and a table at the end."""

import json
import logging
import random
import time
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from deploy.chaos import history, run
from deploy.chaos.check import FAULTS, Report, check
from deploy.chaos.nemesis import FAULTS as NEMESIS
from deploy.operate import Json, console, errors, show, table_of
from schemas.errors import Misconfigured

_SHOWN: Final = 20


def chaos(
    minutes: Annotated[
        float, typer.Option(help="How long to load and to break; draining comes on top.", min=0.1)
    ] = 1.0,
    seed: Annotated[int | None, typer.Option(help="Of load and faults; drawn, and said, where absent.")] = None,
    history_file: Annotated[Path | None, typer.Option("--history", help="Where the history is written, or is.")] = None,
    replay: Annotated[bool, typer.Option(help="Judge that history again; nothing is started.")] = False,
    rerun: Annotated[bool, typer.Option(help="Run again with that history's seed and schedule.")] = False,
    fault: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(NEMESIS)}; repeatable. Else all.")] = None,
    tenant_count: Annotated[int, typer.Option("--tenants", min=1, max=50)] = 4,
    clients: Annotated[int, typer.Option(help="Clients of each tenant, side by side.", min=1, max=50)] = 2,
    pace: Annotated[float, typer.Option(help="Seconds between two requests of a client.", min=0.01)] = 0.25,
    gap: Annotated[float, typer.Option(help="Seconds between two faults.", min=0.1)] = 3.0,
    as_json: Json = False,
) -> None:
    """Prove that nothing is lost or doubled: load a stack of its own, break it at random moments, compare.

    Rows, stock and prices of several tenants go in, with duplicates, resends,
    uploads and bad rows, while gateway, streams, sinks, Kafka and PostgreSQL are
    killed, paused and restarted, connections cut and a disk filled. When all is
    quiet again, logs, ledger and every row of every table are held against a model.
    Exits 1 when something is lost, doubled or wrong.

    --replay judges the same evidence again, exactly. --rerun repeats what clients
    ask for and when faults begin, not how processes and requests interleave: run it
    several times to meet a rare fault again.

    [dim]tillstream chaos --minutes 5 --seed 7[/dim]

    [dim]tillstream chaos --minutes 2 --fault kill --fault pause --gap 1[/dim]

    [dim]tillstream chaos --history chaos-7.ndjson --replay[/dim]
    """
    if replay or rerun:
        if history_file is None:
            raise Misconfigured("--replay and --rerun need the file of a run: --history FILE")
        first = next(iter(history.read(history_file)), None)
        if first is None:
            raise Misconfigured(f"{history_file} is empty")
        if replay:
            _say(as_json, {"history": str(history_file)}, check(history.read(history_file)))
            return
        plan, path = msgspec.convert(first["plan"], run.Plan), history_file.with_suffix(".again.ndjson")
    else:
        seed = random.SystemRandom().randrange(10**6) if seed is None else seed
        if unknown := set(fault or ()) - set(NEMESIS):
            raise Misconfigured(f"no such fault: {', '.join(sorted(unknown))}; there are {', '.join(NEMESIS)}")
        plan = run.Plan(
            minutes * 60, seed, tenant_count, clients, pace, faults=tuple(fault or NEMESIS), gap_s=gap
        )  # fmt: skip
        path = history_file or Path(f"chaos-{seed}.ndjson")
    logging.basicConfig(level="ERROR", format="%(levelname)s %(message)s")  # that things die is no news here
    result = _watched(plan, path)
    told = {
        "seed": plan.seed, "history": str(result.history), "load": result.asked, "faults": result.struck,
        "restarts": result.restarts,
    }  # fmt: skip
    _say(as_json, told, result.report)


def _watched(plan: run.Plan, path: Path) -> run.Result:
    """Run, and tell people on stderr how far it is: a bar on a terminal, else a line a step."""
    began = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), TextColumn("{task.fields[said]}"))
    with Progress(*columns, console=errors, disable=not errors.is_terminal) as bar:
        task = bar.add_task("chaos", total=plan.seconds, said="")

        def step(what: str) -> None:
            errors.print(f"[dim]{time.monotonic() - began:6.1f} s[/dim]  {what}", highlight=False, soft_wrap=True)

        def progress(now: run.Progress) -> None:
            asked, unknown = now.asked.get("requests", 0), now.asked.get("unknown attempts", 0)
            said = f"{asked:,} requests, {unknown:,} without an outcome; {now.struck} faults; {now.last}"
            bar.update(task, completed=now.elapsed_s, said=said)

        step(f"seed {plan.seed}; the history goes to {path}")
        return run.run(plan, path, on_step=step, on_progress=progress)


def _say(as_json: bool, told: dict[str, Any], report: Report) -> None:
    """Print the end of it. Raises Exit 1 where something was found."""
    faults = {kind: getattr(report, kind) for kind in FAULTS}
    if as_json:
        print(json.dumps(told | {"compared": report.compared, "good": report.good} | faults))  # noqa: T201
    else:
        _table(told, report)
        _verdict(console, report, told["history"])
    if not report.good:
        raise typer.Exit(1)


def _table(told: dict[str, Any], report: Report) -> None:
    table = table_of("what", "how many", "which")
    groups = (("clients", "load"), ("faults", "faults"), ("restarts", "restarts"))
    for name, key in groups:
        counts = {what: count for what, count in told.get(key, {}).items() if count}
        if counts:
            said = ", ".join(f"{what} {count:,}" for what, count in counts.items())
            total = counts.get("requests", sum(counts.values()))
            table.add_row(name, f"{total:,}", said)
    for what, count in report.compared.items():
        table.add_row("compared", f"{count:,}", what)
    for kind in FAULTS:
        table.add_row(kind, f"{len(getattr(report, kind)):,}", "")
    show(table)


def _verdict(to: Console, report: Report, path: str) -> None:
    if report.good:
        to.print("[green]Nothing is lost, nothing is doubled, nothing is wrong.[/green]")
        return
    for kind, what in list(report.found())[:_SHOWN]:
        to.print(f"{kind}: {what}", style="red", markup=False, highlight=False, soft_wrap=True)
    to.print(f"[red]All of it is in {path}; tillstream chaos --history {path} --replay judges it again.[/red]")
