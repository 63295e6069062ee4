-- The products that sold most in some orders, by one of the two figures.
SELECT product_id, (SELECT name FROM products p WHERE p.tenant_id = {tenant} AND p.product_id = sold.product_id) AS name,
       currency, orders, quantity, revenue::text AS revenue
FROM (
    SELECT item.product_id, o.currency, count(DISTINCT o.external_order_id) AS orders, sum(item.quantity) AS quantity,
           sum(item.quantity * item.unit_price) AS revenue
    FROM orders o
    JOIN order_items item ON item.tenant_id = {tenant} AND item.external_order_id = o.external_order_id
    WHERE o.tenant_id = {tenant} AND order_status NOT IN ('cancelled', 'refunded') AND {where}
    GROUP BY item.product_id, o.currency
    ORDER BY {order} DESC, item.product_id
    {limit}
) sold
ORDER BY sold.{order} DESC, product_id
