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

_MAX_ERRORS: Final = 100
_MAX_LINES: Final = 101


async def event(request: Request) -> Response:
    """Tell what became of an event.

    `pending` where this installation made its id and it is not in the ledger yet.
    """
    tenant_id = authenticated(request).tenant_id
    filters.none(request.query_params)
    event_id = filters.last_of_path(request)
    async with reading(request, tenant_id) as db:
        lines = await _lines(db, tenant_id, event_id)
        if lines:
            first, *repeats = lines
            found = first | await _errors(db, tenant_id, first["position"]) | {"repeats": repeats}
            return json(200, found, {"Cache-Control": "no-store"})
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


async def _errors(db: Db, tenant_id: str, position: dict[str, Any]) -> dict[str, Any]:
    """The first row errors of the message at this position, and how many are left out."""
    cursor = db.cursor(row_factory=dict_row)
    await cursor.execute(statement("row_errors_of_line"), [tenant_id, *position.values(), _MAX_ERRORS])
    errors = await cursor.fetchall()
    total = errors[0]["total"] if errors else 0
    for error in errors:
        del error["total"]
    return {"errors": errors, "errors_omitted": total - len(errors)}
