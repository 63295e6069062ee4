-- The policies of a tenant from an offset of its partition of `ingestion` on; a message that came before changes nothing.
INSERT INTO ingestion_policies AS live (tenant_id, currencies, order_totals, log_offset)
VALUES (%s, %s, %s, %s)
ON CONFLICT (tenant_id) DO UPDATE SET
    currencies = excluded.currencies, order_totals = excluded.order_totals, log_offset = excluded.log_offset
WHERE excluded.log_offset > live.log_offset
