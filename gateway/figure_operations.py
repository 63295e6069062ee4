"""What figures answer, as PostgreSQL makes it (gateway/sql/), and their operations."""

from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from gateway.filters import FILTERS
from gateway.operation import CSV, JSON, KEYS, NDJSON, TENANT, TENANT_CODES, Content, Operation, Said

_Day = Annotated[str, Meta(description="A day of UTC.", extra_json_schema={"format": "date"})]
_Amount = Annotated[str, Meta(examples=["39.90"], extra_json_schema={"pattern": r"^[0-9]+\.[0-9]{2}$"})]


class DayInCurrency(Struct):
    """A day's orders in one currency."""

    day: _Day
    currency: str
    orders: Annotated[int, Meta(description="All of them.")]
    cancelled: int
    refunded: int
    revenue: Annotated[_Amount, Meta(description="Without what was cancelled or refunded.")]
    customers: Annotated[int, Meta(description="Who ordered, each once; orders that name nobody do not count.")]
    average_order: Annotated[_Amount | None, Meta(description="Null where every order was cancelled or refunded.")]


class DailyPage(Struct):
    """Days and currencies, the newest first."""

    data: list[DayInCurrency]
    next_cursor: str | None


class SoldProduct(Struct):
    """What a product sold."""

    product_id: str
    name: Annotated[str | None, Meta(description="Null where the product is not known yet.")]
    currency: str
    orders: int
    quantity: int
    revenue: _Amount


class TopPage(Struct):
    """Products, those that sold most first."""

    data: list[SoldProduct]
    next_cursor: None


class StockOuts(Struct):
    """A day's products that ran out."""

    day: _Day
    products: int


class StockOutsPage(Struct):
    """Days, the newest first."""

    data: list[StockOuts]
    next_cursor: str | None


class PriceAnomalies(Struct):
    """A day's alerts on prices, by what became of the price."""

    day: _Day
    alerts: int
    flagged: int
    held: int
    rejected: int
    products: int


class PriceAnomaliesPage(Struct):
    """Days, the newest first."""

    data: list[PriceAnomalies]
    next_cursor: str | None


def _list(entity: str, page: Any, row: Any, paging: tuple[str, ...] = ("page.limit", "page.cursor")) -> Operation:
    contents = {JSON: Content(page), NDJSON: Content(list[row]), CSV: Content()}
    return Operation(
        f"list_{entity}",
        "Figures",
        parameters=(*(f"{entity}.{name}" for name in FILTERS[entity]), *paging),
        answers={200: Said("A page of JSON; or rows, as they are found.", contents, ("Cache-Control", "Vary"))},
        codes=(*TENANT_CODES, "reads_unavailable", "bad_parameter", "not_acceptable", "too_many_streams"),
        headers=("Applied-Up-To",),
        security=KEYS,
    )


FIGURES: Final = {
    f"GET {TENANT}/metrics/daily": _list("daily_metrics", DailyPage, DayInCurrency),
    f"GET {TENANT}/metrics/top-products": _list("top_products", TopPage, SoldProduct, ("page.limit",)),
    f"GET {TENANT}/metrics/stock-outs": _list("stock_outs", StockOutsPage, StockOuts),
    f"GET {TENANT}/metrics/price-anomalies": _list("price_anomalies", PriceAnomaliesPage, PriceAnomalies),
}
