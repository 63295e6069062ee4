-- Floor and ceiling of products, the last of each; those that came before change nothing.
INSERT INTO price_limits AS live (tenant_id, product_id, floor, ceiling, log_offset)
SELECT DISTINCT ON (tenant_id, product_id)
       tenant_id, product_id, floor_cents * 0.01, ceiling_cents * 0.01, log_offset
FROM staged_price_limits
ORDER BY tenant_id, product_id, log_offset DESC, row_index DESC
ON CONFLICT (tenant_id, product_id) DO UPDATE SET
    floor = excluded.floor, ceiling = excluded.ceiling, log_offset = excluded.log_offset
WHERE excluded.log_offset > live.log_offset
