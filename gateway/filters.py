"""Query parameters of reads: what each takes, and the SQL condition that it becomes."""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import Any, Final, get_args
from urllib.parse import unquote

from msgspec import Struct
from psycopg.sql import SQL, Composed, Literal
from starlette.datastructures import QueryParams
from starlette.requests import Request

from gateway.problems import Problem
from schemas import prices, stock
from schemas.rows import Status

DATE: Final = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
DATE_TIME: Final = rf"{DATE}[Tt ][0-9]{{2}}:[0-9]{{2}}:[0-9]{{2}}(\.[0-9]{{1,6}})?([Zz]|[+-][0-9]{{2}}:[0-9]{{2}})"
"""RFC 3339."""
_DATE_TIME: Final = re.compile(DATE_TIME)
_DATE: Final = re.compile(DATE)
_WHOLE: Final = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_MAX_TEXT: Final = 500
MAX_SCORE: Final = 100


class Filter(Struct, frozen=True):
    """A parameter: what it takes, in words; its reader, which raises ValueError; its condition on `{value}`.

    `absent` is the condition where it is not given. `source` is what holds the rows that it finds and no others: of the
    filters given, the first with one is looked through, under the name of `o`.
    """

    takes: str
    read: Callable[[str], Any]
    condition: str
    several: bool = False
    absent: str = ""
    source: str = ""


def _text(raw: str) -> str:
    if not 1 <= len(raw) <= _MAX_TEXT or "\x00" in raw:
        raise ValueError
    return raw


def _one_of(*words: str) -> Callable[[str], str]:
    def read(raw: str) -> str:
        if raw not in words:
            raise ValueError
        return raw

    return read


def moment(raw: str) -> datetime:
    """An RFC 3339 date-time with its offset, or a date, which is its first moment in UTC. Raises ValueError."""
    if _DATE.fullmatch(raw):
        return datetime.combine(date.fromisoformat(raw), datetime.min.time(), UTC)
    raw = re.sub(r" (\d\d:\d\d)$", r"+\1", raw)  # a plus that was not encoded
    if not _DATE_TIME.fullmatch(raw):
        raise ValueError
    try:
        return datetime.fromisoformat(raw.upper()).astimezone(UTC)
    except OverflowError as exc:  # in UTC it is before the year 1 or after 9999
        raise ValueError from exc


def day(raw: str) -> datetime:
    """The first moment in UTC of a date. Raises ValueError."""
    if not _DATE.fullmatch(raw):
        raise ValueError
    return moment(raw)


def _whole(raw: str) -> int:
    if not _WHOLE.fullmatch(raw) or abs(int(raw)) > stock.MAX_QUANTITY:
        raise ValueError
    return int(raw)


def _score(raw: str) -> int:
    if not raw.isascii() or not raw.isdigit() or len(raw) > 3 or int(raw) > MAX_SCORE:
        raise ValueError
    return int(raw)


_STATUSES: Final = get_args(Status)
ALERTS: Final = ("anomaly", "held", "rejected")
FINDINGS: Final = (*prices.ACTIONS, prices.Detector.BREAKER)
_TEXT: Final = f"1 to {_MAX_TEXT} characters"
_DAY: Final = "a date, which is a day of UTC"
_RECENT: Final = "{} >= date_trunc('day', now(), 'UTC') - interval '30 days'"
_MOMENT: Final = "an RFC 3339 date-time with an offset, or a date (its first moment in UTC)"


def _days(column: str) -> dict[str, Filter]:
    """Days of a column that is a time; without `from`, the last 30 days."""
    return {
        "from": Filter(
            f"{_DAY}; without it, the last 30 days", day, f"{column} >= {{value}}", absent=_RECENT.format(column)
        ),
        "to": Filter(f"{_DAY}; it is left out", day, f"{column} < {{value}}"),
    }


# The orders of a product are read along order_items_of_product, newest first, so that a page costs what it shows,
# wherever they lie. Left to itself the planner walks orders_newest instead, past all orders without it: OFFSET 0
# keeps it from that. USING lets conditions on its columns, such as a cursor's, bound the range of the index.
_OF_PRODUCT: Final = (
    "(SELECT * FROM (SELECT DISTINCT ordered_at AS order_date, external_order_id FROM order_items"
    " WHERE tenant_id = {{tenant}} AND product_id = {product} ORDER BY order_date DESC, external_order_id DESC) item"
    " JOIN LATERAL (SELECT * FROM orders WHERE tenant_id = {{tenant}} AND external_order_id = item.external_order_id"
    " OFFSET 0) of_item USING (order_date, external_order_id))"
)
_HAS_PRODUCT: Final = (
    "EXISTS (SELECT FROM order_items item WHERE item.tenant_id = {{tenant}}"
    " AND item.external_order_id = o.external_order_id AND item.product_id = {product})"
)


def _product(product: str) -> Filter:
    """Orders with an item of a product, which is given in SQL."""
    return Filter(_TEXT, _text, _HAS_PRODUCT.format(product=product), source=_OF_PRODUCT.format(product=product))


FILTERS: Final[Mapping[str, Mapping[str, Filter]]] = {
    "products": {
        "sku": Filter(_TEXT, _text, "sku = {value}"),
        "category": Filter(_TEXT, _text, "category = {value}"),
        "active": Filter("true or false", lambda raw: {"true": True, "false": False}[raw], "active = {value}"),
    },
    "customers": {
        "email": Filter(_TEXT, _text, "email = {value}"),
        "country": Filter(_TEXT, _text, "country = {value}"),
    },
    "orders": {
        "status": Filter(
            f"one or more of {', '.join(_STATUSES)}", _one_of(*_STATUSES), "order_status IN ({value})", several=True
        ),
        "from": Filter(_MOMENT, moment, "order_date >= {value}"),
        "to": Filter(f"{_MOMENT}; orders of that moment are left out", moment, "order_date < {value}"),
        "currency": Filter(_TEXT, _text, "currency = {value}"),
        # Before products: a customer has few orders, a product may have half of all.
        "customer_id": Filter(
            _TEXT,
            _text,
            "customer_id = {value}",
            source="(SELECT * FROM orders WHERE tenant_id = {tenant} AND customer_id = {value})",
        ),
        "product_id": _product("{value}"),
        "sku": _product("(SELECT product_id FROM products WHERE tenant_id = {tenant} AND sku = {value})"),
        "unresolved": Filter(
            "true",
            _one_of("true"),
            # Materialized, so that it is found once even where the planner knows nothing of the tables yet.
            "external_order_id IN (WITH unresolved AS MATERIALIZED ("
            "SELECT external_order_id FROM orders x WHERE tenant_id = {tenant} AND customer_id IS NOT NULL AND NOT"
            " EXISTS (SELECT FROM customers c WHERE c.tenant_id = {tenant} AND c.customer_id = x.customer_id)"
            " UNION "
            "SELECT external_order_id FROM order_items item WHERE tenant_id = {tenant} AND NOT"
            " EXISTS (SELECT FROM products p WHERE p.tenant_id = {tenant} AND p.product_id = item.product_id)"
            ") SELECT external_order_id FROM unresolved)",
        ),
    },
    "stock": {
        "product_id": Filter(_TEXT, _text, "product_id = {value}"),
        "below": Filter(f"a whole number, {stock.MAX_QUANTITY} at most", _whole, "quantity < {value}"),
        "updated_since": Filter(_MOMENT, moment, "updated_at >= {value}"),
    },
    "stock_history": {
        "outcome": Filter(
            f"one or more of {', '.join(stock.OUTCOMES)}",
            _one_of(*stock.OUTCOMES),
            "outcome IN ({value})",
            several=True,
        ),
    },
    "prices": {},
    "price_history": {
        "status": Filter(
            f"one or more of {', '.join(prices.Status)}", _one_of(*prices.Status), "status IN ({value})", several=True
        ),
    },
    "price_alerts": {
        "product_id": Filter(_TEXT, _text, "product_id = {value}"),
        "name": Filter(
            f"one or more of {', '.join(FINDINGS)}",
            _one_of(*FINDINGS),
            "EXISTS (SELECT FROM jsonb_array_elements(findings) f WHERE f->>'name' IN ({value}))",
            several=True,
        ),
        "status": Filter(f"one or more of {', '.join(ALERTS)}", _one_of(*ALERTS), "status IN ({value})", several=True),
        "min_score": Filter(
            f"a whole number, {MAX_SCORE} at most",
            _score,
            "EXISTS (SELECT FROM jsonb_array_elements(findings) f WHERE (f->>'score')::int >= {value})",
        ),
        "from": Filter(_MOMENT, moment, "logged_at >= {value}"),
        "to": Filter(f"{_MOMENT}; alerts of that moment are left out", moment, "logged_at < {value}"),
    },
    "daily_metrics": {
        "from": Filter(_DAY, day, "day >= {value}::date"),
        "to": Filter(f"{_DAY}; it is left out", day, "day < {value}::date"),
        "currency": Filter(_TEXT, _text, "currency = {value}"),
    },
    "top_products": {
        **_days("order_date"),
        "currency": Filter(
            f"{_TEXT}; without it, the tenant's own",
            _text,
            "o.currency = {value}",
            absent="o.currency = (SELECT t.currency FROM tenants t WHERE t.tenant_id = {tenant})",
        ),
        "by": Filter("revenue (the default) or quantity", _one_of("revenue", "quantity"), "true"),
    },
    "stock_outs": _days("logged_at"),
    "price_anomalies": _days("logged_at"),
}


def read(entity: str, given: QueryParams, besides: tuple[str, ...]) -> dict[str, list[Any]]:
    """The values of each filter given. Raises Problem 400 for a name that is none, and neither in `besides`."""
    known = FILTERS[entity]
    found: dict[str, list[Any]] = {}
    for name in given:
        raw = given.getlist(name)
        if name in besides:
            once(name, raw)
        elif name not in known:
            raise bad(name, f"there is no parameter {name!r}; {entity} take {', '.join((*known, *besides))}")
        else:
            found[name] = _values(name, known[name], raw)
    return found


def none(given: QueryParams) -> None:
    """Raises Problem 400 for any parameter."""
    for name in given:
        raise bad(name, f"there is no parameter {name!r}; this path takes none")


def _values(name: str, known: Filter, raw: list[str]) -> list[Any]:
    words = [word.strip() for text in raw for word in text.split(",")] if known.several else [once(name, raw)]
    try:
        return [known.read(word) for word in words]
    except (ValueError, KeyError) as exc:
        raise bad(name, f"{name} takes {known.takes}, not {', '.join(words)[:100]!r}") from exc


def last_of_path(request: Request) -> str:
    """What follows /api/v1/tenants/<tenant>/<kind>/: an id of the merchant's, slashes and all. Raises Problem 404.

    Read from the path as it was sent, where a slash at the end is not the id's and an encoded one is.
    """
    parts = request.scope["raw_path"].split(b"/", 6)  # fewer than seven where a slash before the id is encoded
    raw = parts[6].removesuffix(b"/") if len(parts) == 7 else b""
    return _id(raw)


def before_last_of_path(request: Request, last: bytes) -> str | None:
    """The id that stands between the kind and `/<last>` as they were sent; None where `last` is the end of the id."""
    parts = request.scope["raw_path"].split(b"/", 6)
    raw = parts[6].removesuffix(b"/") if len(parts) == 7 else b""
    return _id(raw.removesuffix(b"/" + last)) if raw.endswith(b"/" + last) else None


def _id(raw: bytes) -> str:
    if not raw or "\x00" in (found := unquote(raw.decode("ascii"))):
        raise Problem(404, "not_found", "there is nothing at this path")
    return found


def once(name: str, raw: list[str]) -> str:
    """The value of a parameter that may come once. Raises Problem 400."""
    if len(raw) != 1:
        raise bad(name, f"{name} is there {len(raw)} times; send it once")
    return raw[0]


def bad(name: str, detail: str) -> Problem:
    """A 400 that names the parameter."""
    return Problem(400, "bad_parameter", detail, parameter=name)


def conditions(entity: str, tenant_id: str, values: Mapping[str, list[Any]]) -> tuple[Composed, list[Composed]]:
    """SQL of the filters given, their values quoted: what is looked through, and what holds for the rows wanted."""
    known = FILTERS[entity]
    source = next((name for name in known if name in values and known[name].source), None)

    def filled(sql: str, name: str) -> Composed:
        return SQL(sql).format(tenant=Literal(tenant_id), value=SQL(", ").join(map(Literal, values.get(name, ()))))

    return filled(known[source].source if source else entity, source or ""), [
        filled(one.condition if name in values else one.absent, name)
        for name, one in known.items()
        if name != source and (name in values or one.absent)
    ]
