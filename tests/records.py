"""Many rows of a tenant at once, made by PostgreSQL itself."""

from typing import Any

import psycopg

_PRODUCTS = """
INSERT INTO products (tenant_id, product_id, id, sku, name, price, currency, category, active, attributes, updated_at,
                      version_at, version_offset, version_row)
SELECT %(tenant)s, 'P-' || n, gen_random_uuid(), 'SKU-' || n, 'Product ' || n, n %% 1000 + 0.5, 'EUR',
       'category ' || n %% 20, n %% 50 <> 0, CASE n %% 2 WHEN 0 THEN '{"colour": "red"}'::jsonb END,
       CASE n %% 3 WHEN 0 THEN timestamptz '2026-01-01 10:00:00.25Z' END, now(), n, 1
FROM generate_series(1, %(rows)s) n
"""
_CUSTOMERS = """
INSERT INTO customers (tenant_id, customer_id, id, email, name, phone, country, attributes, updated_at, version_at,
                       version_offset, version_row)
SELECT %(tenant)s, 'C-' || n, gen_random_uuid(), 'c' || n || '@example.com', 'Customer ' || n, '+49 30 ' || n,
       (ARRAY['DE', 'FR', 'IT'])[n %% 3 + 1], NULL, NULL, now(), n, 1
FROM generate_series(1, %(rows)s) n
"""
# Times of a week, in steps of ten minutes: ties.
_ORDERS = """
INSERT INTO orders (tenant_id, external_order_id, id, customer_id, customer_name, customer_email, total_amount,
                    currency, order_status, order_date, raw_payload, updated_at, version_at, version_offset,
                    version_row)
SELECT %(tenant)s, 'A-' || n, gen_random_uuid(), 'C-' || n %% 5000 + 1, 'Customer ' || n, 'c' || n || '@example.com',
       n %% 10000 + 0.25, CASE n %% 10 WHEN 0 THEN 'USD' ELSE 'EUR' END,
       (ARRAY['delivered', 'delivered', 'pending', 'delivered', 'paid', 'shipped', 'refunded'])[n %% 7 + 1],
       timestamptz '2026-01-01Z' + n * 7919 %% 100000 / 100 * interval '10 minutes',
       CASE n %% 3 WHEN 0 THEN '{"channel": "web"}'::jsonb END, NULL, now(), n, 1
FROM generate_series(1, %(rows)s::bigint) n
"""
_ITEMS = """
INSERT INTO order_items (tenant_id, external_order_id, item, product_id, quantity, unit_price, ordered_at)
SELECT tenant_id, external_order_id, item, 'P-' || (n * 31 + item * 17) %% 1000 + 1, item + 1, 12.5, order_date
FROM generate_series(1, %(rows)s::bigint) n, generate_series(0, 1) item, orders
WHERE (item = 0 OR n %% 3 > 0) AND tenant_id = %(tenant)s AND external_order_id = 'A-' || n
"""
_STOCK = """
INSERT INTO stock_levels (tenant_id, product_id, quantity, version, updated_at, source_offset)
SELECT %(tenant)s, 'P-' || n, n %% 1000, n, now(), n FROM generate_series(1, %(rows)s::bigint) n
"""
_MOVEMENTS = """
INSERT INTO stock_movements (tenant_id, product_id, log_offset, row_index, line, event_id, kind, moved, logged_at,
                             outcome, quantity, version)
SELECT %(tenant)s, 'P-' || n %% 100, n / 500, n %% 500, 1, 'e', 'received', 1, now(),
       CASE n %% 7 WHEN 0 THEN 'rejected' ELSE 'applied' END, n, n
FROM generate_series(1, %(rows)s::bigint) n
"""
_STOCK_OUTS = """
INSERT INTO stock_movements (tenant_id, product_id, log_offset, row_index, line, event_id, kind, moved, logged_at,
                             outcome, quantity, version)
SELECT %(tenant)s, 'P-' || n %% 3, 1000000, n, 1, 'e', 'sold', 1, timestamptz '2026-01-01Z' + n * interval '6 hours',
       'applied', 0, n
FROM generate_series(1, %(rows)s::bigint) n
"""
# Two rows a day, one in each currency.
_DAYS = """
INSERT INTO tenant_daily_metrics (tenant_id, day, currency, orders, cancelled, refunded, revenue, customers)
SELECT %(tenant)s, '2026-01-01'::date + n / 2, (ARRAY['EUR', 'USD'])[n %% 2 + 1], n, 1, 1, n + 0.5, n
FROM generate_series(3, %(rows)s::int + 2) n
"""
_PRICES = """
INSERT INTO price_changes (tenant_id, product_id, log_offset, row_index, line, event_id, status, alert, findings,
                           new_price, version, occurred_at, logged_at, source, held_offset)
SELECT %(tenant)s, 'P-' || n %% 100, n / 500, n %% 500, 1, 'e',
       CASE n %% 11 WHEN 0 THEN 'anomaly' WHEN 1 THEN 'held' ELSE 'accepted' END, n %% 11 < 2,
       CASE WHEN n %% 11 < 2 THEN '[{"name": "jump", "score": 60, "reason": "x"}]'::jsonb ELSE '[]'::jsonb END,
       12.5, n, now(), timestamptz '2026-01-01Z' + n * interval '1 minute', 's', CASE n %% 100 WHEN 3 THEN n / 500 END
FROM generate_series(1, %(rows)s::bigint) n
"""
_STATEMENTS = {
    "prices": [_PRICES],
    "stock": [_STOCK],
    "movements": [_MOVEMENTS],
    "stock_outs": [_STOCK_OUTS],
    "days": [_DAYS],
    "products": [_PRODUCTS],
    "customers": [_CUSTOMERS],
    "orders": [_ORDERS, _ITEMS],
    "bare orders": [_ORDERS],
}


def fill(db: psycopg.Connection[Any], tenant: str, **rows: int) -> None:
    """Make so many rows of each entity."""
    for entity, count in rows.items():
        for statement in _STATEMENTS[entity]:
            db.execute(statement.encode(), {"tenant": tenant, "rows": count})
