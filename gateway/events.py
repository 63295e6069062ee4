"""GET /events/{event_id}: what became of an event, from its line in the ledger."""

from typing import Any, Final

from psycopg.rows import dict_row
from starlette.requests import Request
from starlette.responses import Response

from gateway import filters
from gateway.database import Db, reading
from gateway.problems import Problem, json
from gateway.sql import statement
from gateway.tenants import authenticated
from schemas import envelope
from schemas.corrections import corrected_event
from schemas.envelope import ROWS_REJECTED

_MAX_ERRORS: Final = 100
_MAX_LINES: Final = 101


async def event(request: Request) -> Response:
    """Tell what became of an event.

    `pending` where this installation made its id and it is not in the ledger yet. Rows that were refused before they
    were accepted count as rejected, with those of their lines; they may follow some milliseconds behind the others.
    """
    tenant_id = authenticated(request).tenant_id
    filters.none(request.query_params)
    event_id = filters.last_of_path(request)
    async with reading(request, tenant_id) as db:
        lines = await _lines(db, tenant_id, event_id)
        if lines:
            first, *repeats = lines
            errors, refused = await _errors(db, tenant_id, first["position"])
            return json(200, _with(refused, first) | errors | {"repeats": repeats}, {"Cache-Control": "no-store"})
    if envelope.issued(request.state.settings.secret, tenant_id, corrected_event(event_id)):
        return json(200, {"event_id": event_id, "status": "pending"}, {"Cache-Control": "no-store"})
    raise Problem(404, "unknown_event", "no gateway made this event id for this tenant, and it is not in the ledger")


async def _lines(db: Db, tenant_id: str, event_id: str) -> list[dict[str, Any]]:
    """The event's lines in the ledger, the applied one first."""
    cursor = db.cursor(row_factory=dict_row)
    await cursor.execute(statement("ledger_lines"), [tenant_id, event_id, _MAX_LINES])
    return [_answer(line) for line in await cursor.fetchall()]


def _answer(line: dict[str, Any]) -> dict[str, Any]:
    position = {"topic": line.pop("topic"), "partition": line.pop("partition"), "offset": line.pop("log_offset")}
    return (
        {"event_id": line.pop("event_id"), "type": line.pop("type"), "status": line.pop("outcome")}
        | line
        | {"position": position}
    )


def _with(refused: int, line: dict[str, Any]) -> dict[str, Any]:
    """The line with the rows that a gateway refused: the ledger, which has what was accepted, does not count them."""
    status = "rejected" if line["type"] == ROWS_REJECTED and refused else line["status"]
    return line | {"status": status, "rows": line["rows"] + refused, "rejected": line["rejected"] + refused}


async def _errors(db: Db, tenant_id: str, position: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """The first row errors of the message at this position and how many are left out; how many a gateway refused."""
    cursor = db.cursor(row_factory=dict_row)
    wanted = {"tenant_id": tenant_id, "rows_rejected": ROWS_REJECTED, "limit": _MAX_ERRORS} | position
    await cursor.execute(statement("row_errors_of_line"), wanted)
    errors = await cursor.fetchall()
    total, refused = (errors[0]["total"], errors[0]["before"]) if errors else (0, 0)
    for error in errors:
        del error["total"], error["before"]
    return {"errors": errors, "errors_omitted": total - len(errors)}, refused
