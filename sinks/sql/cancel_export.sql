-- An export that nobody needs: it is not begun, or its writer ends, and what there is of its file goes at once.
UPDATE exports
SET state = CASE state WHEN 'done' THEN 'done' ELSE 'cancelled' END, reason = NULL, expires_at = now(),
    finished_at = coalesce(finished_at, now())
WHERE tenant_id = %(tenant_id)s AND export_id = %(export_id)s AND state IN ('queued', 'running', 'done')
