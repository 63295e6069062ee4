-- Orders as their merchant sent them, the newest first, each with its items and with what they name that is not known
-- yet. Items are looked up by their primary key, after the limit: a page reads its own rows only, and a stream of
-- millions is on its way long before its last row is found. What is looked through is `orders`, or a narrower source
-- (producers/stored), which has its columns and their order.
SELECT external_order_id, customer_id, customer_name, customer_email, total_amount::text AS total_amount, currency,
       order_status, replace((order_date AT TIME ZONE 'UTC')::text, ' ', 'T') || 'Z' AS order_date,
       coalesce(items, '[]')::json AS items, raw_payload,
       replace((updated_at AT TIME ZONE 'UTC')::text, ' ', 'T') || 'Z' AS updated_at,
       CASE WHEN customer_unknown OR products_unknown IS NOT NULL THEN json_build_object(
           'customer', customer_unknown,
           'products', coalesce((SELECT json_agg(DISTINCT id) FROM unnest(products_unknown) id), '[]')
       ) END AS unresolved
FROM (
    SELECT o.*, i.*, o.customer_id IS NOT NULL AND NOT EXISTS (
               SELECT FROM customers c WHERE c.tenant_id = {tenant} AND c.customer_id = o.customer_id
           ) AS customer_unknown
    FROM (
        SELECT * FROM {source} o
        WHERE tenant_id = {tenant} AND {where}
        ORDER BY order_date DESC, external_order_id DESC
        {limit}
    ) o
    LEFT JOIN LATERAL (
        -- Text is joined, for PostgreSQL's own json_agg breaks lines.
        SELECT '[' || string_agg('{{"product_id":' || to_json(item.product_id)::text || ',"quantity":' || item.quantity
                                 || ',"unit_price":"' || item.unit_price || '"}}', ',' ORDER BY item.item) || ']' AS items,
               array_agg(item.product_id) FILTER (WHERE p.product_id IS NULL) AS products_unknown
        FROM order_items item
        LEFT JOIN products p ON p.tenant_id = {tenant} AND p.product_id = item.product_id
        WHERE item.tenant_id = {tenant} AND item.external_order_id = o.external_order_id
    ) i ON true
    ORDER BY o.order_date DESC, o.external_order_id DESC
) o
ORDER BY o.order_date DESC, o.external_order_id DESC
