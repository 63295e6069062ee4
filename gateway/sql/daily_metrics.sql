-- Figures of days, the newest first.
SELECT day, currency, orders, cancelled, refunded, revenue::text AS revenue, customers,
       average_order::text AS average_order
FROM tenant_daily_metrics
WHERE tenant_id = {tenant} AND {where}
ORDER BY day DESC, currency DESC
{limit}
