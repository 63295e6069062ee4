-- Customers as their merchant sent them, by id.
SELECT customer_id, email, name, phone, country, attributes,
       replace((updated_at AT TIME ZONE 'UTC')::text, ' ', 'T') || 'Z' AS updated_at
FROM customers
WHERE tenant_id = {tenant} AND {where}
ORDER BY customer_id
{limit}
