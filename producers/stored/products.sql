-- Products as their merchant sent them, by id.
SELECT product_id, sku, name, price::text AS price, currency, category, to_json(active) AS active, attributes,
       replace((updated_at AT TIME ZONE 'UTC')::text, ' ', 'T') || 'Z' AS updated_at
FROM products
WHERE tenant_id = {tenant} AND {where}
ORDER BY product_id
{limit}
