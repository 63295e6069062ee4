-- The marks of these days that are there now; one that comes later is for the next count.
DELETE FROM metrics_marks
USING unnest(%s::text[], %s::date[]) AS counted (tenant_id, day)
WHERE metrics_marks.tenant_id = counted.tenant_id AND metrics_marks.day = counted.day
