-- The versions that are there of these customers.
SELECT tenant_id, customer_id, (extract(epoch FROM version_at) * 1000000)::bigint - 946684800000000, version_offset, version_row
FROM unnest(%s::text[], %s::text[]) AS wanted (tenant_id, customer_id)
JOIN customers USING (tenant_id, customer_id)
