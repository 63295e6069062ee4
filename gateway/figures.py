"""Figures of days and products: what was counted ahead (sinks/daily_metrics.py), and what is counted when asked for."""

from typing import Final

from psycopg.sql import SQL
from starlette.requests import Request
from starlette.responses import Response

from gateway.reads import listing

_BY_QUANTITY: Final = SQL("quantity")
_BY_REVENUE: Final = SQL("revenue")


async def daily_metrics(request: Request) -> Response:
    """List the figures of days in each currency, the newest first.

    Days are those of UTC, by `order_date`. Revenue and average leave out what was cancelled or refunded. A page, or all
    of them as NDJSON or CSV, as Accept says.
    """
    return await listing(request, "daily_metrics")


async def top_products(request: Request) -> Response:
    """List the products that sold most, by revenue or quantity.

    Of orders in one currency that were neither cancelled nor refunded. `name` is null of a product not known yet.
    `limit` says how many; there are no more pages.
    """
    order = _BY_QUANTITY if request.query_params.get("by") == "quantity" else _BY_REVENUE
    return await listing(request, "top_products", order=order)


async def stock_outs(request: Request) -> Response:
    """List how many products ran out on each day, the newest first.

    Those that a sale, a correction or a count left at nothing or below. Days without any are left out.
    """
    return await listing(request, "stock_outs")


async def price_anomalies(request: Request) -> Response:
    """List how many alerts on prices there were on each day, the newest first.

    Days without any are left out.
    """
    return await listing(request, "price_anomalies")


ROUTES: Final = (
    ("/metrics/daily", daily_metrics),
    ("/metrics/top-products", top_products),
    ("/metrics/stock-outs", stock_outs),
    ("/metrics/price-anomalies", price_anomalies),
)
