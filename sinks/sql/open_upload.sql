-- An upload began.
INSERT INTO uploads (tenant_id, upload_id, entity, name, opened_at, expires_at, chunks)
VALUES (%(tenant_id)s, %(upload_id)s, %(entity)s, %(name)s,
        timestamptz 'epoch' + %(opened_at)s::bigint * interval '1 microsecond',
        timestamptz 'epoch' + %(expires_at)s::bigint * interval '1 microsecond', %(chunks)s)
ON CONFLICT DO NOTHING
