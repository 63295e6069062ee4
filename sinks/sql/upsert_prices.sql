-- The prices that staged changes put in force: of each product the last, as it was first said. Only ever forward.
INSERT INTO prices AS live (tenant_id, product_id, price, currency, since, version, source_offset)
SELECT DISTINCT ON (tenant_id, product_id)
       tenant_id, product_id, after_cents * 0.01, currency, occurred_at, version, log_offset
FROM staged_price_changes
WHERE status IN ('accepted', 'anomaly')
ORDER BY tenant_id, product_id, version DESC, log_offset, row_index
ON CONFLICT (tenant_id, product_id) DO UPDATE SET
    price = excluded.price, currency = excluded.currency, since = excluded.since, version = excluded.version,
    source_offset = excluded.source_offset
WHERE excluded.version > live.version
