"""Queries of stored records, which reads and exports share: their SQL, and the filters that narrow them."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from functools import cache
from importlib import resources
from typing import Any, Final, get_args

from msgspec import Struct
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from schemas.errors import Rejected
from schemas.rows import Status
from schemas.stock import MAX_QUANTITY
from schemas.values import Invalid, currency_code

DATE: Final = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
DATE_TIME: Final = rf"{DATE}[Tt ][0-9]{{2}}:[0-9]{{2}}:[0-9]{{2}}(\.[0-9]{{1,6}})?([Zz]|[+-][0-9]{{2}}:[0-9]{{2}})"
"""RFC 3339."""
_DATE_TIME: Final = re.compile(DATE_TIME)
_DATE: Final = re.compile(DATE)
_WHOLE: Final = re.compile(r"-?[0-9]{1,18}", re.ASCII)
MAX_TEXT: Final = 500

READING: Final = {
    "timezone": "UTC",
    "datestyle": "ISO",
    "enable_memoize": "off",  # an order's items are asked for once: there is nothing to remember
}
"""Settings under which the queries answer the same text everywhere."""
# JSON text never holds a control character: quoted and delimited by two of them, CSV is the text itself.
COPY_NDJSON: Final = SQL(
    "COPY (SELECT row_to_json(r) FROM ({}) r) TO STDOUT (FORMAT csv, DELIMITER E'\\x01', QUOTE E'\\x02')"
)
COPY_CSV: Final = SQL("COPY ({}) TO STDOUT (FORMAT csv, HEADER)")


class Filter(Struct, frozen=True):
    """A parameter: what it takes, in words; its reader, which raises ValueError; its condition on `{value}`.

    `several` values are alternatives: the parameter comes several times, or they stand between commas, unless they may
    have commas of their own. `absent` is the condition where it is not given. `source` is what holds the rows that it
    finds and no others: of the filters given, the first with one is looked through, under the name of `o`.
    """

    takes: str
    read: Callable[[str], Any]
    condition: str
    several: bool = False
    commas: bool = False
    absent: str = ""
    source: str = ""

    def words(self, given: list[str]) -> list[str]:
        """The values that a parameter has, which was given so often."""
        if not self.several or self.commas:
            return given
        return [word.strip() for text in given for word in text.split(",")]


def text(raw: str) -> str:
    """Some text that PostgreSQL can hold. Raises ValueError."""
    if not 1 <= len(raw) <= MAX_TEXT or "\x00" in raw:
        raise ValueError
    return raw


def quantity(raw: str) -> int:
    """A whole number, which a level of stock can be. Raises ValueError."""
    if not _WHOLE.fullmatch(raw) or abs(int(raw)) > MAX_QUANTITY:
        raise ValueError
    return int(raw)


def one_of(*words: str) -> Callable[[str], str]:
    """A reader of one of these words."""

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


def currency(raw: str) -> str:
    """An ISO 4217 code. Raises ValueError."""
    try:
        return currency_code(raw)
    except Invalid as exc:
        raise ValueError from exc


def day(raw: str) -> datetime:
    """The first moment in UTC of a date. Raises ValueError."""
    if not _DATE.fullmatch(raw):
        raise ValueError
    return moment(raw)


_STATUSES: Final = get_args(Status)
TEXT: Final = f"1 to {MAX_TEXT} characters"
CURRENCY: Final = "three capital letters such as EUR"
MAX_FILTERS: Final = 100
"""Values of an export's filters."""
BACKWARDS: Final = "from is after to: nothing lies between"
MOMENT: Final = "an RFC 3339 date-time with an offset, or a date (its first moment in UTC)"

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
    return Filter(TEXT, text, _HAS_PRODUCT.format(product=product), source=_OF_PRODUCT.format(product=product))


RECORDS: Final[Mapping[str, Mapping[str, Filter]]] = {
    "products": {
        "sku": Filter(TEXT, text, "sku = {value}"),
        "category": Filter(TEXT, text, "category = {value}"),
        "active": Filter("true or false", lambda raw: {"true": True, "false": False}[raw], "active = {value}"),
    },
    "customers": {
        "email": Filter(TEXT, text, "email = {value}"),
        "country": Filter(TEXT, text, "country = {value}"),
    },
    "orders": {
        "status": Filter(
            f"one or more of {', '.join(_STATUSES)}", one_of(*_STATUSES), "order_status IN ({value})", several=True
        ),
        "from": Filter(MOMENT, moment, "order_date >= {value}"),
        "to": Filter(f"{MOMENT}; orders of that moment are left out", moment, "order_date < {value}"),
        "currency": Filter(CURRENCY, currency, "currency = {value}"),
        # Before products: a customer has few orders, a product may have half of all.
        "customer_id": Filter(
            TEXT,
            text,
            "customer_id = {value}",
            source="(SELECT * FROM orders WHERE tenant_id = {tenant} AND customer_id = {value})",
        ),
        "product_id": _product("{value}"),
        "sku": _product("(SELECT product_id FROM products WHERE tenant_id = {tenant} AND sku = {value})"),
        "unresolved": Filter(
            "true",
            one_of("true"),
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
        "product_id": Filter(
            f"the id of a product, {TEXT}; several times for several",
            text,
            "product_id IN ({value})",
            several=True,
            commas=True,
        ),
        # No index has the quantity. Of 500,000 levels a page of the 50 that ran out takes 70 ms without one, 1 ms with
        # one; but then, be it partial, no update of a level is a heap-only one, and all are written a quarter slower.
        "below": Filter(f"a whole number, {MAX_QUANTITY} at most", quantity, "quantity < {value}"),
        "updated_since": Filter(MOMENT, moment, "updated_at >= {value}"),
    },
}
_TABLES: Final = {"stock": "stock_levels"}
"""Of what is not called as its table is."""


@cache
def statement(entity: str) -> SQL:
    """The text of `<entity>.sql`, with its `{placeholders}` still to fill."""
    return SQL(resources.files(__name__).joinpath(f"{entity}.sql").read_text())


def select(
    statement: SQL,
    entity: str,
    tenant_id: str,
    where: Sequence[Composable],
    limit: int | None = None,
    order: Composable | None = None,
    source: Composable | None = None,
) -> Composed:
    """The query for rows as they are answered, in their order, which is `order` where there are several.

    They are looked for in `source`, or in the whole table.
    """
    return statement.format(
        tenant=Literal(tenant_id),
        where=SQL(" AND ").join(where or [SQL("true")]),
        limit=SQL("" if limit is None else "LIMIT {}").format(Literal(limit)),
        order=order or SQL(""),
        source=source or Identifier(_table(entity)),
    )


def _table(entity: str) -> str:
    return _TABLES.get(entity, entity)


def values(entity: str, given: Iterable[tuple[str, str]]) -> dict[str, list[Any]]:
    """What filters of an entity's records take, of pairs of a name and text. Raises Rejected."""
    if (known := RECORDS.get(entity)) is None:
        raise Rejected("bad_filter", f"there are no {entity[:100]!r}; there are {', '.join(RECORDS)}")
    texts: dict[str, list[str]] = {}
    for name, text in given:
        texts.setdefault(name, []).append(text)
    found = {}
    for name, several in texts.items():
        if (one := known.get(name)) is None:
            raise Rejected("bad_filter", f"there is no filter {name[:100]!r}; {entity} take {', '.join(known)}")
        if len(several) > 1 and not one.several:
            raise Rejected("bad_filter", f"{name} is there {len(several)} times; give it once")
        words = one.words(several)
        try:
            found[name] = [one.read(word) for word in words]
        except (ValueError, KeyError) as exc:
            raise Rejected("bad_filter", f"{name} takes {one.takes}, not {', '.join(words)[:100]!r}") from exc
    if backwards(found):
        raise Rejected("bad_filter", BACKWARDS)
    return found


def backwards(values: Mapping[str, list[Any]]) -> bool:
    """Whether they ask for what lies between two moments the wrong way round."""
    return "from" in values and "to" in values and bool(values["from"][0] > values["to"][0])


def conditions(
    entity: str, known: Mapping[str, Filter], tenant_id: str, values: Mapping[str, list[Any]]
) -> tuple[Composed, list[Composed]]:
    """SQL of the filters given, their values quoted: what is looked through, and what holds for the rows wanted."""
    source = next((name for name in known if name in values and known[name].source), None)

    def filled(sql: str, name: str) -> Composed:
        return SQL(sql).format(tenant=Literal(tenant_id), value=SQL(", ").join(map(Literal, values.get(name, ()))))

    return filled(known[source].source if source else _table(entity), source or ""), [
        filled(one.condition if name in values else one.absent, name)
        for name, one in known.items()
        if name != source and (name in values or one.absent)
    ]


def joined(rows: list[Any], end: bytes) -> bytes:
    """Rows of a COPY as PostgreSQL sent them, each ended by `end` instead of a line feed."""
    chunk = b"".join(rows)
    if end == b"\n":  # as PostgreSQL ends them
        return chunk
    if chunk.count(b"\n") == len(rows):
        return chunk.replace(b"\n", end)
    return end.join([row[:-1] for row in rows]) + end  # a value has a line feed, which stays as it is
