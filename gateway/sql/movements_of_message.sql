-- What a message of `stock` did to the products that it names, in its order.
SELECT line, product_id, outcome, code, quantity, version, kind, moved, expected_quantity
FROM stock_movements
WHERE tenant_id = %s AND product_id = ANY (%s) AND log_offset = %s
ORDER BY row_index
