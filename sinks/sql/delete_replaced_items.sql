-- The items of an order that was replaced go, whether or not the new version has any.
DELETE FROM order_items AS item
USING applied_orders AS applied
WHERE applied.replaced
  AND item.tenant_id = applied.tenant_id
  AND item.external_order_id = applied.external_order_id
