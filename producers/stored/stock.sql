-- Levels of stock, by product, whether its row is known or not.
SELECT product_id, quantity, version, replace((updated_at AT TIME ZONE 'UTC')::text, ' ', 'T') || 'Z' AS updated_at
FROM stock_levels
WHERE tenant_id = {tenant} AND {where}
ORDER BY product_id
{limit}
