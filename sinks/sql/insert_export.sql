-- A request for an export, once however often it comes. Beyond the open ones that a tenant may have it fails at once;
-- one so old that its file would be gone, as when a database is filled anew, has expired.
INSERT INTO exports (tenant_id, export_id, entity, format, gzip, filters, requested_at, state, reason, finished_at)
SELECT tenant_id, export_id, entity, format, gzip, filters, requested_at, state,
       CASE state WHEN 'failed' THEN format('%%s exports are open, as many as may be', %(most_open)s::int) END,
       CASE state WHEN 'queued' THEN NULL ELSE now() END
FROM (
    SELECT asked.*, CASE
        WHEN requested_at < now() - %(kept_h)s * interval '1 hour' THEN 'expired'
        WHEN (SELECT count(*) FROM exports
              WHERE tenant_id = %(tenant_id)s AND state IN ('queued', 'running')) >= %(most_open)s THEN 'failed'
        ELSE 'queued'
    END AS state
    FROM (
        SELECT %(tenant_id)s AS tenant_id, %(export_id)s::uuid AS export_id, %(entity)s AS entity,
               %(format)s AS format, %(gzip)s::boolean AS gzip, %(filters)s::jsonb AS filters,
               timestamptz 'epoch' + %(requested_at)s::bigint * interval '1 microsecond' AS requested_at
    ) asked
) judged
ON CONFLICT DO NOTHING
