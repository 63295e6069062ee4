-- How many products ran out on each day, the newest first; the condition is that of the index stock_outs.
SELECT (logged_at AT TIME ZONE 'UTC')::date AS day, count(DISTINCT product_id) AS products
FROM stock_movements
WHERE tenant_id = {tenant} AND outcome = 'applied' AND quantity <= 0 AND kind NOT IN ('received', 'returned') AND {where}
GROUP BY 1
ORDER BY 1 DESC
{limit}
