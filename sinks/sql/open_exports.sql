-- Exports to be written, a tenant's first before any tenant's second. One that runs is among them: its lock says
-- whether anybody is at it.
SELECT tenant_id, export_id::text, entity, format, gzip, filters, attempt
FROM exports
WHERE state IN ('queued', 'running')
ORDER BY row_number() OVER (PARTITION BY tenant_id ORDER BY requested_at), requested_at
LIMIT 100
