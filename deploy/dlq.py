"""`tillstream dlq`: what was set aside, and sending it once more."""

import getpass
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final

import psycopg
import typer

from deploy import dlq_view
from deploy.operate import DEFAULT_DATA_DIR, DataDir, Json, bars
from deploy.stack import running
from producers.registry import reading
from schemas.errors import Misconfigured, Rejected
from schemas.settings import Settings
from sinks import quarantine, redrives, redriving
from sinks.quarantine import STATUSES, Letter, Wanted
from sinks.redrive import Patch, read_patch
from sinks.redriving import Asked

app = typer.Typer(
    help="Dead letters: messages and rows that were set aside, and sending them once more.", no_args_is_help=True
)

_FINE: Final = ("applied", "duplicate", "superseded", "partly superseded")
"""Ends of a redrive that leave nothing to do: what came since stays."""
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_LONGEST_WHY: Final = 1_000
_KNOWN_S: Final = 10.0
"""How long a redrive waits until sinks have written what is known of others."""

Tenant = Annotated[str, typer.Option("--tenant", help="Of this tenant only.")]
Nobodys = Annotated[bool, typer.Option(help="Only those whose tenant cannot be trusted.")]
Reason = Annotated[str, typer.Option(help="Of this code only, such as processing_error.")]
Topic = Annotated[str, typer.Option(help="From this source topic only: ingestion, stock or prices.")]
Since = Annotated[str, typer.Option(metavar="TIME", help="Appended since: RFC 3339, or 30m, 24h, 7d ago.")]
Until = Annotated[str, typer.Option(metavar="TIME", help="Appended before: as --since.")]


@app.command("list")
def list_(
    tenant: Tenant = "",
    nobodys: Nobodys = False,
    reason: Reason = "",
    topic: Topic = "",
    since: Since = "",
    until: Until = "",
    status: Annotated[str, typer.Option(help=f"{', '.join(STATUSES)}, or all.", show_default="open and begun")] = "",
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 50,
    summary: Annotated[bool, typer.Option("--summary", help="Count them by tenant, topic and reason instead.")] = False,
    as_json: Json = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """What was set aside, the newest first: whole messages, and rows out of good ones.

    A letter is open until it is redriven; then sent, and done or failed once the ledger says so. What is refused again
    is a letter of its own, open. Corrected is a row that its tenant has put right.

    [dim]tillstream dlq list --tenant acme --reason invalid_value --since 24h[/dim]

    [dim]tillstream dlq list --summary --status all[/dim]
    """
    settings = running(data_dir)[0]
    wanted = _wanted(settings, tenant, nobodys, reason, topic, since, until, _statuses(status))
    with redriving.connect(settings.database_url) as db:
        if summary:
            dlq_view.show_summary(quarantine.summary(db, wanted), settings.prefix, as_json)
        else:
            dlq_view.show_list(quarantine.find(db, wanted, limit), settings.prefix, as_json, limit)


@app.command()
def show(
    letter: Annotated[str, typer.Argument(help="As list names it: topic/partition/offset, and /row of a row.")],
    as_json: Json = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """One letter: why, where it lay, its headers, its rows as they were sent, and what was done about it.

    [dim]tillstream dlq show ingestion/3/42/736 --json[/dim]
    """
    settings = running(data_dir)[0]
    registry = reading(settings)
    with redriving.connect(settings.database_url) as db:
        letters = quarantine.find(db, quarantine.named(letter, settings.prefix), 1, whole=True)
        if not letters:
            raise Rejected(
                "no_such_letter", f"nothing was set aside at {letter}; see: tillstream dlq list --status all"
            )
        if registry is not None:
            registry.learn(letters[0].payload)
        dlq_view.show_letter(letters[0], quarantine.redrives(db, letters[0]), settings.prefix, as_json)


@app.command()
def redrive(
    letters: Annotated[list[str] | None, typer.Argument(help="As list names them; or choose by the options.")] = None,
    why: Annotated[str, typer.Option(help="Why: it is kept with who and when.")] = "",
    by: Annotated[str, typer.Option(help="Who you are.", show_default="your login")] = "",
    patch: Annotated[
        str, typer.Option(help="JSON Patch (RFC 6902), or a file of one: of each row; of a message, of its rows.")
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent, and send nothing.")] = False,
    rate: Annotated[float, typer.Option(min=0, help="Messages a second; 0 is no limit.")] = 50,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for what becomes of them.")] = 0,
    tenant: Tenant = "",
    nobodys: Nobodys = False,
    reason: Reason = "",
    topic: Topic = "",
    since: Since = "",
    until: Until = "",
    again: Annotated[bool, typer.Option("--again", help="Also those that were redriven before.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many letters, the oldest first.")] = 1_000,
    as_json: Json = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Send letters once more, the oldest first, at most --rate messages a second.

    Each goes out as a new message under the id [bold]<id>~r<n>[/bold], and rows keep the version they had: what came
    since is never overwritten, they end superseded instead. Stock is folded in log order, where the movement comes
    again: it still adds or takes away, but is superseded when a set counted it since; a set is, when anything moved
    since. A price is superseded by any newer one. Policies, decisions and uploads' own messages are not sent again.

    A patch is of each row of a row's letter: --patch '[{"op":"replace","path":"/currency","value":"EUR"}]'; of a whole
    message its document is {"rows": [...]}: path /rows/0/currency.

    The ledger's line of the first message stays rejected; the new message has a line of its own, and the law holds of
    both. Interrupted, the same command goes on and doubles nothing. Exit codes: 0 all were sent (and with --wait
    applied, or superseded by what came since), 1 some were refused or failed, 2 put it right first, 75 try again later.

    [dim]tillstream dlq redrive --reason processing_error --since 2h --why "fixed in 1.4.2" --dry-run[/dim]

    [dim]tillstream dlq redrive ingestion/3/42/736 --patch fix.json --why "ticket 811" --wait 10[/dim]
    """
    settings = running(data_dir)[0]
    asked = _asked(by, why, patch, dry_run, again)
    wanted = _wanted(settings, tenant, nobodys, reason, topic, since, until, STATUSES if again else ("open", "begun"))
    if not letters and wanted.anything:
        raise Misconfigured("say which: letters as `tillstream dlq list` names them, or options such as --reason")
    if letters and not wanted.anything:
        raise Misconfigured("either name letters or choose them by options, not both")
    with redriving.connect(settings.database_url) as db:
        redrives.await_known(db, settings, _KNOWN_S)
        if letters:
            found = _named(db, settings, letters, again)
        else:
            found = quarantine.find(db, wanted, limit, newest_first=False)
        sent, refused = _redrive(db, settings, found, asked, dry_run, rate)
        outcomes = {} if dry_run else _waited(db, list(sent), wait)
    dlq_view.show_redrive(sent, refused, outcomes, settings.prefix, as_json, dry_run)
    failed = wait and not dry_run and any(outcomes.get(one) not in _FINE for one in sent)
    raise typer.Exit(int(bool(refused or failed)))


def _redrive(
    db: Any, settings: Settings, found: list[Letter], asked: Asked, dry_run: bool, rate: float
) -> tuple[dict[str, list[Letter]], list[tuple[Letter, Rejected]]]:
    """Letters by the event id they were sent under, and those that could not be."""
    sent: dict[str, list[Letter]] = {}
    refused: list[tuple[Letter, Rejected]] = []
    groups = list(redriving.messages(found))
    kafka, registry = redriving.producer(settings), reading(settings)
    with bars() as progress:
        bar = progress.add_task("redrive", total=len(groups))
        for letters in groups:
            started = time.monotonic()
            try:
                message = redriving.prepared(db, letters, asked.patch, registry)
                if dry_run:
                    sent[f"{letters[0].name()} of {letters[0].event_id}"] = letters
                else:
                    sent[redriving.send(db, settings, kafka, message, asked)] = letters
            except Rejected as exc:
                refused += [(one, exc) for one in letters]
                if not dry_run:
                    redriving.refuse(db, settings, kafka, letters, asked, exc)
            progress.advance(bar)
            if rate and not dry_run:
                time.sleep(max(0.0, started + 1 / rate - time.monotonic()))
    return sent, refused


def _waited(db: psycopg.Connection[Any], event_ids: list[str], seconds: float) -> dict[str, str]:
    deadline = time.monotonic() + seconds
    while len(outcomes := redriving.ended(db, event_ids)) < len(event_ids) and time.monotonic() < deadline:
        time.sleep(0.2)
    return outcomes


def _named(db: psycopg.Connection[Any], settings: Settings, names: list[str], again: bool) -> list[Letter]:
    found: dict[str, Letter] = {}
    for name in names:
        wanted = quarantine.named(name, settings.prefix)
        letters = quarantine.find(db, wanted, 100_000)
        if not letters:
            raise Rejected("no_such_letter", f"nothing was set aside at {name}; see: tillstream dlq list --status all")
        if not again and all(one.status not in ("open", "begun") for one in letters):
            one = letters[0]
            raise Rejected(
                "redriven_before", f"{name} was sent as {one.redriven_as} and is {one.status}; once more with --again"
            )
        found |= {one.name(): one for one in letters if again or one.status in ("open", "begun")}
    return sorted(found.values(), key=lambda one: (one.logged_at, one.topic, one.log_offset, one.row_index or 0))


def _asked(by: str, why: str, patch: str, dry_run: bool, again: bool) -> Asked:
    """Who asks, and why. Raises Misconfigured."""
    why, by = why.strip(), (by or getpass.getuser()).strip()
    if not dry_run and not why:
        raise Misconfigured("say why with --why: it is kept with who and when")
    if len(why) > _LONGEST_WHY or len(by) > _LONGEST_WHY or not by or not (why + by).isprintable():
        raise Misconfigured(f"--why and --by take up to {_LONGEST_WHY:,} printable characters")
    return Asked(by, why, _patch(patch), again)


def _patch(text: str) -> Patch | None:
    if not text:
        return None
    return read_patch(text if text.lstrip().startswith(("[", "{")) else Path(text).read_text("utf-8"))


def _wanted(
    settings: Settings, tenant: str, nobodys: bool, reason: str, topic: str, since: str, until: str,
    statuses: tuple[str, ...],
) -> Wanted:  # fmt: skip
    return Wanted(
        tenant_id=tenant or None,
        nobodys=nobodys,
        reason=reason or None,
        topic=settings.named(topic) if topic else None,
        since=_moment(since),
        until=_moment(until),
        statuses=statuses,
    )


def _statuses(text: str) -> tuple[str, ...]:
    if text in ("", "all"):
        return STATUSES if text else ("open", "begun")
    if text not in STATUSES:
        raise Misconfigured(f"--status takes {', '.join(STATUSES)} or all, not {text!r}")
    return (text,)


def _moment(text: str) -> datetime | None:
    """A time, or so long ago. Raises Misconfigured."""
    if not text:
        return None
    number, unit = text[:-1], text[-1]
    if unit in _UNITS and number.isdecimal() and len(number) < 7:
        return datetime.now(UTC) - timedelta(**{_UNITS[unit]: int(number)})
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as exc:
        raise Misconfigured(f"{text!r} is neither RFC 3339, such as 2026-01-31T12:00:00Z, nor 30m, 24h or 7d") from exc
    if moment.tzinfo is None:
        raise Misconfigured(f"{text!r} has no offset: write 2026-01-31T12:00:00Z")
    return moment
