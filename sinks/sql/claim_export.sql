-- Begin an attempt, unless another has since.
UPDATE exports SET state = 'running', attempt = attempt + 1, rows_done = 0, rows_total = NULL, started_at = now(),
    finished_at = NULL
WHERE tenant_id = %s AND export_id = %s::uuid AND attempt = %s AND state IN ('queued', 'running')
RETURNING attempt
