"""Query parameters of reads: what each takes, and the SQL condition that it becomes."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote

from psycopg.sql import Composed
from starlette.datastructures import QueryParams
from starlette.requests import Request

from gateway.problems import Problem
from producers import stored
from producers.stored import CURRENCY, MOMENT, RECORDS, TEXT, Filter, currency, day, moment, one_of, text
from schemas import prices, stock

MAX_SCORE: Final = 100


def _score(raw: str) -> int:
    if not raw.isascii() or not raw.isdigit() or len(raw) > 3 or int(raw) > MAX_SCORE:
        raise ValueError
    return int(raw)


ALERTS: Final = ("anomaly", "held", "rejected")
FINDINGS: Final = (*prices.ACTIONS, prices.Detector.BREAKER)
_DAY: Final = "a date, which is a day of UTC"
_RECENT: Final = "{} >= date_trunc('day', now(), 'UTC') - interval '30 days'"


def _days(column: str) -> dict[str, Filter]:
    """Days of a column that is a time; without `from`, the last 30 days."""
    return {
        "from": Filter(
            f"{_DAY}; without it, the last 30 days", day, f"{column} >= {{value}}", absent=_RECENT.format(column)
        ),
        "to": Filter(f"{_DAY}; it is left out", day, f"{column} < {{value}}"),
    }


FILTERS: Final[Mapping[str, Mapping[str, Filter]]] = {
    **RECORDS,
    "stock_history": {
        "outcome": Filter(
            f"one or more of {', '.join(stock.OUTCOMES)}",
            one_of(*stock.OUTCOMES),
            "outcome IN ({value})",
            several=True,
        ),
    },
    "prices": {},
    "price_history": {
        "status": Filter(
            f"one or more of {', '.join(prices.Status)}", one_of(*prices.Status), "status IN ({value})", several=True
        ),
    },
    "price_alerts": {
        "product_id": Filter(TEXT, text, "product_id = {value}"),
        "name": Filter(
            f"one or more of {', '.join(FINDINGS)}",
            one_of(*FINDINGS),
            "EXISTS (SELECT FROM jsonb_array_elements(findings) f WHERE f->>'name' IN ({value}))",
            several=True,
        ),
        "status": Filter(f"one or more of {', '.join(ALERTS)}", one_of(*ALERTS), "status IN ({value})", several=True),
        "min_score": Filter(
            f"a whole number, {MAX_SCORE} at most",
            _score,
            "EXISTS (SELECT FROM jsonb_array_elements(findings) f WHERE (f->>'score')::int >= {value})",
        ),
        "from": Filter(MOMENT, moment, "logged_at >= {value}"),
        "to": Filter(f"{MOMENT}; alerts of that moment are left out", moment, "logged_at < {value}"),
    },
    "daily_metrics": {
        "from": Filter(_DAY, day, "day >= {value}::date"),
        "to": Filter(f"{_DAY}; it is left out", day, "day < {value}::date"),
        "currency": Filter(CURRENCY, currency, "currency = {value}"),
    },
    "top_products": {
        **_days("order_date"),
        "currency": Filter(
            f"{CURRENCY}; without it, the tenant's own",
            currency,
            "o.currency = {value}",
            absent="o.currency = (SELECT t.currency FROM tenants t WHERE t.tenant_id = {tenant})",
        ),
        "by": Filter("revenue (the default) or quantity", one_of("revenue", "quantity"), "true"),
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
    if stored.backwards(found):
        raise bad("from", stored.BACKWARDS)
    return found


def none(given: QueryParams) -> None:
    """Raises Problem 400 for any parameter."""
    for name in given:
        raise bad(name, f"there is no parameter {name!r}; this path takes none")


def _values(name: str, known: Filter, raw: list[str]) -> list[Any]:
    words = known.words(raw) if known.several else [once(name, raw)]
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
    """SQL of the filters given: what is looked through, and what holds for the rows wanted."""
    return stored.conditions(entity, FILTERS[entity], tenant_id, values)
