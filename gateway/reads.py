"""Reads of what is stored: pages, one record, or all of it as a stream, and how fresh it is."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal
from starlette.requests import Request
from starlette.responses import Response

from gateway import accept, cursors, filters
from gateway.database import Db, reading
from gateway.problems import Problem
from gateway.sql import statement
from gateway.stream import Query, Streamed
from gateway.tenants import authenticated
from producers import stored
from schemas import topics

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"
CSV: Final = "text/csv"
_PAGE: Final = 100
MAX_PAGE: Final = 1_000
_MAX_LIMIT: Final = 10**14
_PAGING: Final = ("limit", "cursor")
_KEYS: Final[dict[str, tuple[str, ...]]] = {
    "products": ("product_id",),
    "customers": ("customer_id",),
    "orders": ("order_date", "external_order_id"),
    "stock": ("product_id",),
    "stock_history": ("offset", "row"),
    "prices": ("product_id",),
    "price_history": ("offset", "row"),
    "price_alerts": ("logged_at", "offset", "row"),
    "daily_metrics": ("day", "currency"),
    "top_products": ("product_id",),
    "stock_outs": ("day",),
    "price_anomalies": ("day",),
}
_AFTER: Final = {
    "products": "product_id > {}",
    "customers": "customer_id > {}",
    "orders": "(order_date, external_order_id) < ({}, {})",
    "stock": "product_id > {}",
    "stock_history": "(log_offset, row_index) < ({}, {})",
    "price_history": "(log_offset, row_index) < ({}, {})",
    "price_alerts": "(logged_at, log_offset, row_index) < ({}, {}, {})",
    "daily_metrics": "(day, currency) < ({}, {})",
    "stock_outs": "logged_at < {}",
    "price_anomalies": "logged_at < {}",
}
"""Of what is listed page by page."""
_READ_KEY: Final[dict[str, tuple[Callable[[str], Any], ...]]] = {
    "orders": (stored.moment, str),
    "stock_history": (int, int),
    "price_history": (int, int),
    "price_alerts": (stored.moment, int, int),
    "daily_metrics": (stored.day, str),
    "stock_outs": (stored.day,),
    "price_anomalies": (stored.day,),
}
"""How the parts of a key are read from a cursor, where they are not text."""
_FRESH: Final = {
    "stock": (topics.STOCK_LEVELS, topics.OUTCOMES),
    "stock_history": (topics.OUTCOMES,),
    "prices": (topics.PRICES_VERDICTS,),
    "price_history": (topics.PRICES_VERDICTS,),
    "price_alerts": (topics.PRICES_VERDICTS,),
    "stock_outs": (topics.OUTCOMES,),
    "price_anomalies": (topics.PRICES_VERDICTS,),
}
"""The topics that a read's rows come from, where it is not `ingestion.unique`."""


async def products(request: Request) -> Response:
    """List products, by id.

    A page, or all of them as NDJSON or CSV, as Accept says.
    """
    return await listing(request, "products")


async def customers(request: Request) -> Response:
    """List customers, by id.

    A page, or all of them as NDJSON or CSV, as Accept says.
    """
    return await listing(request, "customers")


async def orders(request: Request) -> Response:
    """List orders with their items, the newest first.

    A page, or all of them as NDJSON or CSV, as Accept says.
    """
    return await listing(request, "orders")


async def product(request: Request) -> Response:
    """Show a product."""
    return await _one(request, "products")


async def customer(request: Request) -> Response:
    """Show a customer."""
    return await _one(request, "customers")


async def order(request: Request) -> Response:
    """Show an order with its items."""
    return await _one(request, "orders")


async def stock(request: Request) -> Response:
    """List levels of stock, by product.

    A page, or all of them as NDJSON or CSV, as Accept says.
    """
    return await listing(request, "stock")


async def stock_level(request: Request) -> Response:
    """Show how much there is of a product.

    The version counts the movements that were applied.
    """
    return await _one(request, "stock")


async def stock_history(request: Request) -> Response:
    """List what became of each movement of a product: why is this 3? The newest first

    A page, or all of them as NDJSON or CSV, as Accept says.
    """
    product_id = filters.before_last_of_path(request, b"history")
    if product_id is None:  # the slash before it came encoded: it is the product's own
        return await stock_level(request)
    return await listing(request, "stock_history", product_id)


async def price(request: Request) -> Response:
    """Show the price of a product: the one in force, its limits, and the last changes.

    `price` is null where none has come in force.
    """
    return await _one(request, "prices")


async def price_history(request: Request) -> Response:
    """List the changes of a product's price, with their verdicts, the newest first.

    Decisions about held ones stand among them. A page, or all of them as NDJSON or CSV, as Accept says.
    """
    product_id = filters.before_last_of_path(request, b"history")
    if product_id is None:
        return await price(request)
    return await listing(request, "price_history", product_id)


async def price_alerts(request: Request) -> Response:
    """List alerts on prices, the newest first.

    Anomalies, and prices that were held or rejected for one; with what was decided about those held, or which later
    price took their place. A page, or all of them as NDJSON or CSV, as Accept says.
    """
    return await listing(request, "price_alerts")


# Merchants' ids may hold slashes, hence `path`.
ROUTES: Final = (
    ("/products", products),
    ("/products/{record_id:path}", product),
    ("/customers", customers),
    ("/customers/{record_id:path}", customer),
    ("/orders", orders),
    ("/orders/{record_id:path}", order),
    ("/stock", stock),
    ("/stock/{record_id:path}/history", stock_history),
    ("/stock/{record_id:path}", stock_level),
    ("/prices/{record_id:path}/history", price_history),
    ("/prices/{record_id:path}", price),
    ("/price-alerts", price_alerts),
)


async def listing(
    request: Request, entity: str, product_id: str | None = None, order: Composable | None = None
) -> Response:
    """A page `{data, next_cursor}`, or all rows as NDJSON or CSV, as Accept says. Raises Problem.

    `order` is for what can be listed in several; that has no further pages.
    """
    tenant_id = authenticated(request).tenant_id
    media_type = accept.best(",".join(request.headers.getlist("accept")), (JSON, NDJSON, CSV))
    given = request.query_params
    values = filters.read(entity, given, _PAGING if entity in _AFTER else _PAGING[:1])
    asked = sorted((name, sorted(map(str, several))) for name, several in values.items())
    scope = [tenant_id, entity, asked, *([] if product_id is None else [product_id])]
    source, where = filters.conditions(entity, tenant_id, values)
    if product_id is not None:
        where.append(SQL("product_id = {}").format(Literal(product_id)))
    if "cursor" in given:
        where.append(_after(entity, cursors.decode(scope, given["cursor"], len(_KEYS[entity]))))
    limit = _limit(given.get("limit"), MAX_PAGE if media_type == JSON else _MAX_LIMIT)
    if media_type == JSON:
        limit = limit or _PAGE
        rows = select(entity, tenant_id, where, limit + (entity in _AFTER), order, source)  # is there a next page?
        return await _page(request, tenant_id, entity, rows, limit, scope)
    request.state.database.must_answer()
    rows = select(entity, tenant_id, where, limit, order, source)
    query = Query(
        tenant_id,
        copy=(stored.COPY_NDJSON if media_type == NDJSON else stored.COPY_CSV).format(rows),
        first=_applied_up_to(request, tenant_id, entity),
        line_end=b"\n" if media_type == NDJSON else b"\r\n",
    )
    return Streamed(request.state.streams, query, media_type, _headers)


async def _page(
    request: Request, tenant_id: str, entity: str, rows: Composed, limit: int, scope: list[Any]
) -> Response:
    key = SQL(", ").join(SQL("r.{}").format(Identifier(name)) for name in _KEYS[entity])
    query = SQL("SELECT row_to_json(r)::text, {} FROM ({}) r").format(key, rows)
    async with reading(request, tenant_id) as db:
        headers = _headers(await _first(db, _applied_up_to(request, tenant_id, entity)))
        found = await (await db.execute(query)).fetchall()
    more, found = len(found) > limit, found[:limit]
    cursor = cursors.encode(scope, [_text(part) for part in found[-1][1:]]) if more else None
    data = ",".join(row[0] for row in found).encode()
    body = b'{"data":[' + data + b'],"next_cursor":' + msgspec.json.encode(cursor) + b"}"
    return Response(body, headers=headers, media_type=JSON)


async def _one(request: Request, entity: str) -> Response:
    tenant_id = authenticated(request).tenant_id
    accept.best(",".join(request.headers.getlist("accept")), (JSON,))
    filters.none(request.query_params)
    where = [SQL("{} = {}").format(Identifier(_KEYS[entity][-1]), Literal(filters.last_of_path(request)))]
    query = SQL("SELECT row_to_json(r)::text FROM ({}) r").format(select(entity, tenant_id, where, None))
    async with reading(request, tenant_id) as db:
        headers = _headers(await _first(db, _applied_up_to(request, tenant_id, entity)))
        found = await _first(db, query)
    if found is None:
        raise Problem(404, "not_found", f"none of the {entity} has this id, or it is not applied yet")
    return Response(found[0], headers=headers, media_type=JSON)


def select(
    entity: str,
    tenant_id: str,
    where: Sequence[Composable],
    limit: int | None,
    order: Composable | None = None,
    source: Composable | None = None,
) -> Composed:
    """The query for rows as they are answered, in their order, which is `order` where there are several.

    They are looked for in `source`, or in the whole table.
    """
    text = stored.statement(entity) if entity in stored.RECORDS else statement(entity)
    return stored.select(text, entity, tenant_id, where, limit, order, source)


def _after(entity: str, key: list[str]) -> Composed:
    """The condition of coming after this key. Raises Problem 400 for a forged one."""
    try:
        parts = [read(part) for read, part in zip(_READ_KEY.get(entity, (str,)), key, strict=True)]
    except ValueError as exc:
        raise filters.bad("cursor", "cursor takes the next_cursor of the page before, whole") from exc
    return SQL(_AFTER[entity]).format(*map(Literal, parts))


def _text(part: Any) -> Any:
    return str(part) if isinstance(part, int) else part


def _limit(given: str | None, most: int) -> int | None:
    if given is None:
        return None
    if not (given.isascii() and given.isdigit() and len(given) < 16 and 1 <= int(given) <= most):
        raise filters.bad("limit", f"limit takes 1 to {most}, not {given[:40]!r}")
    return int(given)


def _applied_up_to(request: Request, tenant_id: str, entity: str) -> Composed | None:
    """The query for how far the tenant's partition is applied; None while Kafka has not said how many there are."""
    if (partitions := request.state.kafka.partitions) is None:
        return None
    read = [request.state.settings.named(name) for name in _FRESH.get(entity, (topics.INGESTION_UNIQUE,))]
    partition = topics.partition_of(topics.partition_key(tenant_id), partitions)
    column = Identifier("counted_up_to" if entity == "daily_metrics" else "applied_up_to")
    return SQL(
        "SELECT CASE count({}) WHEN {} THEN min({}) END FROM sink_offsets WHERE topic IN ({}) AND partition = {}"
    ).format(column, len(read), column, SQL(", ").join(map(Literal, read)), partition)


async def _first(db: Db, query: Composed | None) -> Any:
    return None if query is None else await (await db.execute(query)).fetchone()


def _headers(applied: tuple[datetime | None] | None) -> dict[str, str]:
    """`applied` is the row that `_applied_up_to` found."""
    headers = {"Vary": "Accept", "Cache-Control": "no-store"}  # shared caches do not know that X-API-Key is a secret
    if applied is not None and applied[0] is not None:
        moment = applied[0].astimezone(UTC).isoformat(timespec="milliseconds")
        headers["Applied-Up-To"] = moment.replace("+00:00", "Z")
    return headers
