-- Exports to be written: a tenant's first before any tenant's second, and of those first the tenant's who has waited
-- for longest since one of its own was begun. One that runs is among them: its lock says whether anybody is at it.
SELECT tenant_id, export_id::text, entity, format, gzip, filters, attempt
FROM exports open
WHERE state IN ('queued', 'running')
ORDER BY row_number() OVER (PARTITION BY tenant_id ORDER BY requested_at), (
    SELECT started_at FROM exports begun WHERE begun.tenant_id = open.tenant_id AND started_at IS NOT NULL
    ORDER BY requested_at DESC LIMIT 1
) NULLS FIRST, requested_at
LIMIT 100
