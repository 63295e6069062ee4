-- Which of these days are ours to count until the transaction ends; the others another refresher has. A lock a tenant
-- and day: two that share a hash wait for each other, no more.
SELECT tenant_id, day
FROM unnest(%s::text[], %s::date[]) AS wanted (tenant_id, day)
WHERE pg_try_advisory_xact_lock(7471, hashtext(tenant_id || ' ' || day))
