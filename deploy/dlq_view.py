"""How `tillstream dlq` shows letters: tables for people, JSON for scripts."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from deploy.operate import console, show, table_of
from schemas.errors import Rejected
from sinks.quarantine import Letter, contents

_SHOWN_BYTES: Final = 512
_encode: Final = msgspec.json.Encoder(decimal_format="number").encode
_NOBODY: Final = "(nobody's)"


def show_list(letters: Sequence[Letter], prefix: str, as_json: bool, limit: int) -> None:
    if as_json:
        _print([_fields(letter, prefix) for letter in letters])
        return
    table = table_of("letter", "tenant", "type", "rows", "reason", "detail", "appended", "status")
    for one in letters:
        appended = f"{one.logged_at:%Y-%m-%d %H:%M:%S}"
        what = one.natural_id or "?" if one.kind == "row" else f"{one.rows:,}"
        table.add_row(
            *map(_safe, (one.name(prefix), one.tenant_id or _NOBODY, one.type.removeprefix("tillstream."), what)),
            *map(_safe, (one.reason, one.detail[:200], appended, one.status)),
        )
    show(table)
    if len(letters) == limit:
        console.print(f"the newest {limit:,}; there may be more (--limit, --summary)")


def show_summary(counts: Sequence[tuple[str | None, str, str, str, int]], prefix: str, as_json: bool) -> None:
    names = ("tenant_id", "topic", "reason", "status", "letters")
    if as_json:
        _print([dict(zip(names, (t, topic.removeprefix(prefix), *rest), strict=True)) for t, topic, *rest in counts])
        return
    table = table_of("tenant", *names[1:])
    for tenant_id, topic, reason, status, count in counts:
        table.add_row(*map(_safe, (tenant_id or _NOBODY, topic.removeprefix(prefix), reason, status, f"{count:,}")))
    show(table)


def show_letter(letter: Letter, redrives: Sequence[Mapping[str, Any]], prefix: str, as_json: bool) -> None:
    try:
        rows, unreadable = contents(letter), None
    except Rejected as exc:
        rows, unreadable = [], str(exc)
    if as_json:
        raw = None if letter.payload is None else letter.payload.hex()
        more = {"headers": letter.headers, "contents": rows, "unreadable": unreadable, "payload_hex": raw}
        _print(_fields(letter, prefix) | more | {"redrives": redrives})
        return
    table = table_of("", "")
    for name, value in _fields(letter, prefix).items():
        table.add_row(name, "" if value is None else _safe(str(value)))
    for name, value in (letter.headers or {}).items():
        table.add_row(_safe(f"header {name}"), _safe(value))
    table.show_header = False
    show(table)
    for row in rows:
        _line(_encode(row).decode())
    if unreadable is not None:
        _line(f"cannot be read: {unreadable}")
        if payload := letter.payload:
            _line(f"the first bytes of {letter.payload_bytes:,}: {payload[:_SHOWN_BYTES]!r}")
    for done in redrives:
        _line(
            f"{done['begun_at']} {done['by']}: {done['result']} {done['event_id'] or ''} because {done['why']!r}"
            + (f", {done['detail']}" if done["detail"] else "")
        )


def show_redrive(
    sent: Mapping[str, Sequence[Letter]],
    refused: Sequence[tuple[Letter, Rejected]],
    outcomes: Mapping[str, str],
    prefix: str,
    as_json: bool,
    dry_run: bool,
) -> None:
    if as_json:
        messages = [
            {
                "event_id": None if dry_run else event_id,
                "letters": [one.name(prefix) for one in letters],
                "outcome": outcomes.get(event_id),
            }
            for event_id, letters in sent.items()
        ]
        said = [{"letter": one.name(prefix), "code": why.code, "detail": why.detail} for one, why in refused]
        _print({"dry_run": dry_run, "sent": messages, "refused": said})
        return
    for event_id, letters in sent.items():
        names = ", ".join(one.name(prefix) for one in letters[:3]) + (" ..." if letters[3:] else "")
        ending = "would be sent" if dry_run else f"sent as {event_id} {outcomes.get(event_id, '')}".rstrip()
        _line(f"{names}: {ending}")
    for one, why in refused:
        _line(f"{one.name(prefix)}: refused, {why}")
    count = sum(map(len, sent.values()))
    what = "would be sent" if dry_run else "sent"
    _line(f"{count:,} letters {what} in {len(sent):,} messages, {len(refused):,} refused")


def _fields(letter: Letter, prefix: str) -> dict[str, Any]:
    names = (
        "tenant_id", "claimed", "kind", "step", "reason", "detail", "event_id", "type", "rows", "line", "natural_id",
        "accepted_at", "logged_at", "dead_at", "payload_bytes", "status", "redriven_as",
    )  # fmt: skip
    return {"letter": letter.name(prefix)} | {name: getattr(letter, name) for name in names}


def _line(text: str) -> None:
    console.print(_safe(text), markup=False, highlight=False, soft_wrap=True)


def _safe(text: str) -> str:
    """Text without what a terminal would obey: a stranger may have written it."""
    return "".join(one if one.isprintable() else "\ufffd" for one in text)


def _print(said: Any) -> None:
    print(_encode(said).decode())  # noqa: T201
