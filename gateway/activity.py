"""GET /activity: what came of a tenant's rows within the last minute, and how long they took.

GET /uploads: a tenant's uploads, the newest first. Both are for people who look at a page.
"""

from typing import Annotated, Final
from uuid import UUID

from msgspec import Meta, Struct
from psycopg.rows import dict_row
from starlette.requests import Request
from starlette.responses import Response

from gateway import filters, upload_state
from gateway.database import reading
from gateway.operation import JSON, KEYS, TENANT, TENANT_CODES, Content, Operation, Said
from gateway.problems import Problem, json
from gateway.sql import statement
from gateway.tenants import authenticated
from gateway.upload_state import UploadState
from gateway.upload_token import Token
from schemas import topics
from schemas.envelope import ROWS_REJECTED
from schemas.errors import Unavailable

_SOURCES: Final = (topics.INGESTION, topics.STOCK, topics.PRICES)
_LINES: Final = 5_000
_REFUSED: Final = 100_000
_MOST: Final = 100
_UPLOADS: Final = """
SELECT upload_id, entity, (extract(epoch FROM opened_at) * 1000000)::bigint,
       (extract(epoch FROM expires_at) * 1000000)::bigint
FROM uploads WHERE tenant_id = %s AND (opened_at, upload_id) <
    (SELECT coalesce(max(opened_at), 'infinity'), coalesce(%s::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
     FROM uploads WHERE tenant_id = %s AND upload_id = %s::uuid)
ORDER BY opened_at DESC, upload_id DESC LIMIT %s
"""


class Second(Struct):
    """Rows of one second."""

    ago: Annotated[int, Meta(description="Seconds.")]
    rows: int


class Activity(Struct):
    """The last minute; of a tenant that sends very many messages, the newest 5,000 of each kind."""

    seconds: Annotated[list[Second], Meta(description="Those in which something was applied, the last one first.")]
    rows: int
    applied: int
    superseded: int
    duplicate: int
    conflict: int
    rejected: Annotated[int, Meta(description="Those refused before they were accepted, too, where they are kept.")]
    median_ms: Annotated[float | None, Meta(description="From acceptance to the ledger; null where nothing came.")]
    p95_ms: float | None
    accepting: Annotated[bool, Meta(description="False while Kafka is away: what is sent is answered 503.")]


class ListedUpload(UploadState, kw_only=True):
    """An upload, and the token that its other paths take."""

    token: str


class UploadPage(Struct):
    """Uploads, the newest first."""

    data: list[ListedUpload]
    next_before: Annotated[str | None, Meta(description="What `before` takes for the next page; null on the last.")]


async def activity(request: Request) -> Response:
    """See what became of the rows of the last minute.

    By the second, by outcome, and how long it took from acceptance to the ledger.
    """
    tenant_id = authenticated(request).tenant_id
    filters.none(request.query_params)
    settings, kafka = request.state.settings, request.state.kafka
    if kafka.partitions is None:
        raise Problem(503, "reads_unavailable", "Kafka has not said how many partitions there are", retry_after=1)
    asked = {
        "tenant_id": tenant_id,
        "topics": [settings.named(topic) for topic in _SOURCES],
        "partition": topics.partition_of(topics.partition_key(tenant_id), kafka.partitions),
        "lines": _LINES,
        "rows_rejected": ROWS_REJECTED,
        "refused": _REFUSED,
    }
    async with reading(request, tenant_id) as db:
        cursor = db.cursor(row_factory=dict_row)
        found = await (await cursor.execute(statement("activity"), asked)).fetchone()
    assert found is not None
    return json(200, found | {"accepting": kafka.reachable}, {"Cache-Control": "no-store"})


async def list_uploads(request: Request) -> Response:
    """List uploads, the newest first.

    Each with its state and the token that its other paths take. `before` is the upload_id after which a page begins.
    """
    tenant_id = authenticated(request).tenant_id
    limit, before = _page(request)
    async with reading(request, tenant_id) as db:
        found = await (await db.execute(_UPLOADS, [tenant_id, before, tenant_id, before, limit + 1])).fetchall()
    listed = []
    for upload_id, *said in found[:limit]:
        token = Token(upload_id, *said)
        try:
            state = await upload_state.read(request.state.database, tenant_id, token, None, cancelled=False)
        except Unavailable as exc:
            raise Problem(503, "reads_unavailable", f"{exc}; try again", retry_after=1) from exc
        signed = token.sign(request.state.settings.secret, tenant_id)
        listed.append(ListedUpload(**{name: getattr(state, name) for name in state.__struct_fields__}, token=signed))
    next_before = str(found[limit - 1][0]) if len(found) > limit else None
    return json(200, UploadPage(listed, next_before), {"Cache-Control": "no-store"})


def _page(request: Request) -> tuple[int, UUID | None]:
    """Raises Problem 400."""
    given = dict(request.query_params)
    limit, before = given.pop("limit", "20"), given.pop("before", None)
    if given:
        name = min(given)
        raise Problem(400, "bad_parameter", f"{name[:50]!r} is no parameter; there are before, limit", parameter=name)
    if not (limit.isascii() and limit.isdigit() and len(limit) < 4 and 1 <= int(limit) <= _MOST):
        raise Problem(400, "bad_parameter", f"limit takes 1 to {_MOST}, not {limit[:20]!r}", parameter="limit")
    try:
        if before is not None and str(UUID(before)) != before.lower():
            raise ValueError  # a form that Python reads as well
        return int(limit), UUID(before) if before else None
    except ValueError as exc:
        raise Problem(400, "bad_parameter", "before takes an upload_id", parameter="before") from exc


OPERATIONS: Final = {
    f"GET {TENANT}/activity": Operation(
        "show_activity",
        "Reads",
        answers={200: Said("The last minute.", {JSON: Content(Activity)}, ("Cache-Control",))},
        codes=(*TENANT_CODES, "bad_parameter", "reads_unavailable"),
        security=KEYS,
    ),
    f"GET {TENANT}/uploads": Operation(
        "list_uploads",
        "Uploads",
        answers={200: Said("A page.", {JSON: Content(UploadPage)}, ("Cache-Control",))},
        codes=(*TENANT_CODES, "bad_parameter", "reads_unavailable"),
        parameters=("uploads.limit", "uploads.before"),
        security=KEYS,
    ),
}
