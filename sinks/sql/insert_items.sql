-- The items of the orders that were applied, and of no other, each with the date of its order: the orders of a product
-- are read by it.
INSERT INTO order_items (tenant_id, external_order_id, item, product_id, quantity, unit_price, ordered_at)
SELECT staged.tenant_id, staged.external_order_id, staged.item, staged.product_id, staged.quantity,
       staged.unit_price_cents * 0.01, applied.order_date
FROM staged_order_items AS staged
JOIN applied_orders AS applied USING (tenant_id, external_order_id)
