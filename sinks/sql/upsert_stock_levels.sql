-- Staged levels replace older ones: a level is absolute, and its version grows by one with each movement applied.
INSERT INTO stock_levels AS live (tenant_id, product_id, quantity, version, updated_at, source_offset)
SELECT tenant_id, product_id, quantity, version, updated_at, source_offset FROM staged_stock_levels
ON CONFLICT (tenant_id, product_id) DO UPDATE SET
    quantity = excluded.quantity, version = excluded.version, updated_at = excluded.updated_at,
    source_offset = excluded.source_offset
WHERE excluded.version > live.version
