"""`tillstream replay` and `tillstream rebuild`: tables made again from the topics, compared with the live ones."""

import gc
import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer
from rich import progress

from deploy.operate import DEFAULT_DATA_DIR, DataDir, Json, console, errors, show, table_of
from deploy.stack import running
from producers import admin
from schemas.errors import Misconfigured
from schemas.settings import Settings
from sinks.replay import replaying, shadow
from sinks.replay.differences import KINDS, Sample
from sinks.replay.log import READ, Bound
from sinks.replay.plan import HOLD_S, Plan, Progress, Report

_SHOWN: Final = 200
"""Characters shown of a sample."""

Promote = Annotated[bool, typer.Option("--promote", help="Put the live tables right.")]
Merge = Annotated[bool, typer.Option("--merge", help="Only add what is missing and replace what is older.")]
Samples = Annotated[int, typer.Option(min=0, help="Rows shown a table and kind.")]
Hold = Annotated[float, typer.Option(min=0.1, help="Seconds that --promote may hold sinks back; then it gives up.")]
Keep = Annotated[bool, typer.Option("--keep", help="Leave the shadow schema, to look into.")]


def replay(
    tenant: Annotated[str, typer.Option(help="Whose tables.", show_default=False)] = "",
    since: Annotated[str, typer.Option("--from", help="A time, or an offset of one topic.", show_default="all")] = "",
    until: Annotated[str, typer.Option("--to", help="A time, or an offset: up to before it.", show_default="all")] = "",
    topic: Annotated[
        list[str] | None, typer.Option("--topics", help=f"Of {', '.join(READ)}; with commas, or again.")
    ] = None,
    promote: Promote = False,
    merge: Merge = False,
    samples: Samples = 3,
    hold: Hold = HOLD_S,
    keep: Keep = False,
    clean: Annotated[bool, typer.Option("--clean", help="Drop what killed replays left behind; do no more.")] = False,
    as_json: Json = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Make a tenant's tables again from the topics beside the live ones, and show what differs.

    missing: only the topics know the row; extra: only the live table; different: other than the topics say. With
    --promote the live tables become what the topics say, in one transaction; other tenants' rows are not touched, and
    sinks go on meanwhile, but for the moment of the switch. A range is compared, and promoted, as a merge: rows that it
    does not mention, and newer ones, stay.

    Exits 0 when nothing differs or it was put right, 1 when rows differ, 2 when something must be put right first (it
    says what), 75 when trying again later will do.

    [dim]tillstream replay --tenant acme
    tillstream replay --tenant acme --promote
    tillstream replay --tenant acme --from 2026-01-31T00:00:00Z --promote --merge
    tillstream replay --tenant acme --topics prices.verdicts --from 1200 --to 1300[/dim]
    """
    settings = running(data_dir)[0]
    if clean:
        dropped = shadow.clean(settings.database_url)
        if as_json:
            print(json.dumps({"dropped": dropped}))  # noqa: T201
        else:
            console.print("\n".join(f"dropped {name}" for name in dropped) or "nothing was left behind", markup=False)
        return
    if not tenant:
        raise Misconfigured("replay takes --tenant, or --clean; for all tenants there is tillstream rebuild")
    names = tuple(name.strip() for given in topic or () for name in given.split(",") if name.strip()) or READ
    plan = Plan(tenant, names, _bound(since), _bound(until), merge, promote, samples, hold, keep)
    _run(settings, plan, as_json=as_json)


def rebuild(
    promote: Promote = False,
    merge: Merge = False,
    samples: Samples = 3,
    hold: Hold = HOLD_S,
    keep: Keep = False,
    as_json: Json = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """As replay, of all tenants. An empty database needs none: sinks fill it by themselves.

    [dim]tillstream rebuild --json
    tillstream rebuild --promote --hold 300[/dim]
    """
    _run(running(data_dir)[0], Plan(None, READ, None, None, merge, promote, samples, hold, keep), as_json=as_json)


def _run(settings: Settings, plan: Plan, *, as_json: bool) -> None:
    admin.verify(settings)
    gc.freeze()  # as in sinks: rows come and go by thousands and hold no cycles
    gc.set_threshold(50_000, 20, 50)
    with _bar() as bar:
        task = bar.add_task("reading", total=None, speed="")

        def tell(now: Progress) -> None:
            elapsed = bar.tasks[task].elapsed or 0.0
            speed = f"{now.rows / elapsed:,.0f} rows/s" if elapsed else ""
            bar.update(task, description=now.step, completed=now.done, total=now.total, speed=speed)

        report = replaying.replay(settings, plan, tell)
    if as_json:
        print(json.dumps(_as_json(plan, report)))  # noqa: T201
    else:
        _show(plan, report)
    if report.differing and not report.promoted:
        raise typer.Exit(1)


def _bound(text: str) -> Bound | None:
    """A time with its offset from UTC, which is meant where none is said; or an offset."""
    if not text:
        return None
    if text.isdecimal():
        return int(text)
    try:
        time = datetime.fromisoformat(text)
    except ValueError as exc:
        raise Misconfigured(f"{text!r} is neither an offset nor a time such as 2026-01-31T12:00:00Z") from exc
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _bar() -> progress.Progress:
    columns = (
        progress.TextColumn("{task.description}"), progress.BarColumn(), progress.TextColumn("{task.fields[speed]}"),
        progress.TimeRemainingColumn(),
    )  # fmt: skip
    return progress.Progress(*columns, console=errors, disable=not errors.is_terminal)


def _show(plan: Plan, report: Report) -> None:
    speed = f" ({report.rows / report.reading_s:,.0f} rows/s)" if report.reading_s else ""
    said = f"{report.messages:,} messages, {report.rows:,} rows{speed}"
    if report.merged:
        said += "; compared as a merge: rows that these messages do not mention, and newer ones, are not looked at"
    console.print(said, highlight=False, soft_wrap=True)
    table = table_of("table", *KINDS)
    for name, found in report.tables.items():
        table.add_row(name, *(f"{found.counts[kind]:,}" for kind in KINDS))
    show(table)
    for name, why in report.left_out.items():
        console.print(f"{name} is left out: {why}", markup=False, highlight=False, soft_wrap=True)
    for name, found in report.tables.items():
        for sample in found.samples:
            console.print(f"{name} {_line(sample)}", markup=False, highlight=False, soft_wrap=True)
    if report.promoted:
        held = f"sinks were held back for {report.held_s or 0:.2f} s"
        console.print(f"promoted: {report.differing:,} rows put right; {held}", highlight=False, soft_wrap=True)
    elif report.differing:
        how = "--promote --merge" if report.merged else "--promote"
        console.print(f"{report.differing:,} rows differ; {how} puts them right", highlight=False, soft_wrap=True)
    else:
        console.print("nothing differs")
    if plan.keep:
        console.print(f"the shadow is schema {shadow.schema_of(plan.tenant)}; replay --clean drops it", soft_wrap=True)


def _line(sample: Sample) -> str:
    key = " ".join(str(value) for value in sample.key.values())
    if sample.kind == "different":
        assert sample.live is not None
        assert sample.topics is not None
        pairs = [f"{name}: live {value!r}, topics {sample.topics[name]!r}" for name, value in sample.live.items()]
    else:
        pairs = [f"{name}={value!r}" for name, value in (sample.live or sample.topics or {}).items()]
    said = f"{sample.kind} [{key}] " + "; ".join(pairs)
    return said if len(said) <= _SHOWN else said[: _SHOWN - 1] + "…"


def _as_json(plan: Plan, report: Report) -> dict[str, Any]:
    return {
        "tenant": plan.tenant,
        "merged": report.merged,
        "messages": report.messages,
        "rows": report.rows,
        "reading_s": round(report.reading_s, 3),
        "tables": {
            name: {**found.counts, "samples": [asdict(sample) for sample in found.samples]}
            for name, found in report.tables.items()
        },
        "left_out": report.left_out,
        "promoted": report.promoted,
        "held_s": report.held_s,
        "schema": shadow.schema_of(plan.tenant) if plan.keep else None,
    }
