-- The versions that are there of these orders.
SELECT tenant_id, external_order_id, (extract(epoch FROM version_at) * 1000000)::bigint - 946684800000000, version_offset, version_row
FROM unnest(%s::text[], %s::text[]) AS wanted (tenant_id, external_order_id)
JOIN orders USING (tenant_id, external_order_id)
