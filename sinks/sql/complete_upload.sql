-- All of an upload's chunks are known by number.
UPDATE uploads SET chunks = %(chunks)s,
                   completed_at = timestamptz 'epoch' + %(completed_at)s::bigint * interval '1 microsecond'
WHERE tenant_id = %(tenant_id)s AND upload_id = %(upload_id)s AND completed_at IS NULL
