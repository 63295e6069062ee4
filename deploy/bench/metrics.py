"""Daily metrics: all days of a tenant counted again, against one plain GROUP BY of the same orders."""

import time
from collections.abc import Iterator
from typing import Final

from deploy.bench import figures
from deploy.bench.figures import Figure
from deploy.bench.installation import TENANT, Installation, Say
from deploy.stack import Stack
from sinks import daily_metrics

ORDERS: Final = 1_000_000
TARGET_S: Final = 10.0
_FILL: Final = """
INSERT INTO orders (tenant_id, external_order_id, id, customer_id, customer_name, customer_email, total_amount,
                    currency, order_status, order_date, version_at, version_offset, version_row)
SELECT %s, 'A-' || n, gen_random_uuid(), 'C-' || n * 48271::bigint % 100000, 'Customer ' || n,
       'c' || n || '@example.com', n % 10000 + 0.25, CASE n % 10 WHEN 0 THEN 'USD' ELSE 'EUR' END,
       (ARRAY['delivered', 'delivered', 'pending', 'cancelled', 'paid', 'shipped', 'refunded'])[n % 7 + 1],
       timestamptz '2025-01-01Z' + n * 7919::bigint % 1000000 * (interval '365 days' / 1000000), now(), n, 1
FROM generate_series(1, %s) n
""".replace("% ", "%% ")
_GROUP_BY: Final = """
SELECT tenant_id, (order_date AT TIME ZONE 'UTC')::date, currency, count(*),
       count(*) FILTER (WHERE order_status = 'cancelled'), count(*) FILTER (WHERE order_status = 'refunded'),
       coalesce(sum(total_amount) FILTER (WHERE order_status NOT IN ('cancelled', 'refunded')), 0),
       count(DISTINCT customer_id)
FROM orders GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""
_COUNTED: Final = (
    "SELECT tenant_id, day, currency, orders, cancelled, refunded, revenue, customers FROM tenant_daily_metrics"
    " ORDER BY 1, 2, 3"
)


def run(stack: Stack, count: int, say: Say) -> Iterator[Figure]:
    """A million orders of 365 days, made by SQL, counted by the sinks' refresher; then one of them changed."""
    with Installation(stack, "metrics") as shop, shop.database() as db:
        say(f"{ORDERS:,} orders into PostgreSQL")
        db.execute(_FILL, [TENANT, ORDERS])
        db.execute("VACUUM ANALYZE")
        started = time.perf_counter()
        plain = db.execute(_GROUP_BY).fetchall()
        limit = time.perf_counter() - started
        say("counting")
        with daily_metrics.connect(shop.settings.database_url) as refresher:
            seconds = _refresh(refresher)
            assert db.execute(_COUNTED).fetchall() == plain, "the refresher counted otherwise"
            db.execute("UPDATE orders SET order_date = order_date + interval '1 day' WHERE external_order_id = 'A-1'")
            two = _refresh(refresher)
        yield figures.limit("a plain GROUP BY, read", ORDERS / limit, "orders/s")
        yield figures.share("all days counted again", ORDERS / seconds, ORDERS / limit, unit="orders/s")
        yield Figure("all days counted again", f"{seconds:.1f} s", None, f"< {TARGET_S:.0f} s", seconds < TARGET_S)
        yield Figure("two days, of an order that moved", f"{two * 1000:.0f} ms")


def _refresh(db: daily_metrics.Db) -> float:
    started = time.perf_counter()
    assert daily_metrics.refresh(db, "unused"), "no day was marked"
    return time.perf_counter() - started
