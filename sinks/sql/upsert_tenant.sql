-- A tenant as of an offset of the topic; what is older than what is there changes nothing.
INSERT INTO tenants AS live (tenant_id, name, currency, limits, policies, keys, log_offset, changed_at)
VALUES (%(tenant_id)s, %(name)s, %(currency)s, %(limits)s, %(policies)s, %(keys)s, %(log_offset)s,
        timestamptz 'epoch' + %(changed_ms)s::bigint * interval '1 millisecond')
ON CONFLICT (tenant_id) DO UPDATE SET
    name = excluded.name, currency = excluded.currency, limits = excluded.limits, policies = excluded.policies,
    keys = excluded.keys, log_offset = excluded.log_offset, changed_at = excluded.changed_at
WHERE excluded.log_offset > live.log_offset
