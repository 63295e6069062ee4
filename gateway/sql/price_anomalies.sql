-- Prices of each day about which something was found, by what became of them, the newest day first.
SELECT (logged_at AT TIME ZONE 'UTC')::date AS day, count(*) AS alerts,
       count(*) FILTER (WHERE status = 'anomaly') AS flagged,
       count(*) FILTER (WHERE status = 'held') AS held,
       count(*) FILTER (WHERE status = 'rejected') AS rejected,
       count(DISTINCT product_id) AS products
FROM price_changes
WHERE tenant_id = {tenant} AND alert AND {where}
GROUP BY 1
ORDER BY 1 DESC
{limit}
