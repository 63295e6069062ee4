-- Movements in the order of the log. One that is there already stays as it is.
INSERT INTO stock_movements (tenant_id, product_id, log_offset, row_index, line, event_id, movement_id, kind, moved,
                             expected_quantity, occurred_at, logged_at, outcome, code, quantity, version)
SELECT tenant_id, product_id, log_offset, row_index, line, event_id, movement_id, kind, moved,
       expected_quantity, occurred_at, logged_at, outcome, code, quantity, version
FROM staged_stock_movements
ON CONFLICT DO NOTHING
