-- The figures of these days as the orders have them; those of a currency that no order of the day has any more go.
WITH counted AS (
    SELECT * FROM unnest(%(tenants)s::text[], %(days)s::date[]) AS counted (tenant_id, day)
), figures AS MATERIALIZED (
    SELECT counted.*, of_day.*
    FROM counted
    -- Day by day, so that each reads its own stretch of the index orders_newest.
    CROSS JOIN LATERAL (
        SELECT currency, count(*) AS orders,
               count(*) FILTER (WHERE order_status = 'cancelled') AS cancelled,
               count(*) FILTER (WHERE order_status = 'refunded') AS refunded,
               coalesce(sum(total_amount) FILTER (WHERE order_status NOT IN ('cancelled', 'refunded')), 0) AS revenue,
               count(DISTINCT customer_id) AS customers
        FROM orders
        WHERE tenant_id = counted.tenant_id
          AND order_date >= counted.day::timestamp AT TIME ZONE 'UTC'
          AND order_date < (counted.day + 1)::timestamp AT TIME ZONE 'UTC'
        GROUP BY currency
    ) AS of_day
), gone AS (
    DELETE FROM tenant_daily_metrics AS live USING counted
    WHERE live.tenant_id = counted.tenant_id AND live.day = counted.day AND NOT EXISTS (
        SELECT FROM figures
        WHERE figures.tenant_id = live.tenant_id AND figures.day = live.day AND figures.currency = live.currency
    )
)
INSERT INTO tenant_daily_metrics AS live (tenant_id, day, currency, orders, cancelled, refunded, revenue, customers)
SELECT tenant_id, day, currency, orders, cancelled, refunded, revenue, customers FROM figures
ON CONFLICT (tenant_id, day, currency) DO UPDATE SET
    orders = excluded.orders, cancelled = excluded.cancelled, refunded = excluded.refunded, revenue = excluded.revenue,
    customers = excluded.customers
WHERE (live.orders, live.cancelled, live.refunded, live.revenue, live.customers)
   <> (excluded.orders, excluded.cancelled, excluded.refunded, excluded.revenue, excluded.customers)
