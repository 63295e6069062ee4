-- The items of the orders that were applied, and of no other.
INSERT INTO order_items (tenant_id, external_order_id, item, product_id, quantity, unit_price)
SELECT staged.tenant_id, staged.external_order_id, staged.item, staged.product_id, staged.quantity,
       staged.unit_price_cents * 0.01
FROM staged_order_items AS staged
JOIN applied_orders USING (tenant_id, external_order_id)
