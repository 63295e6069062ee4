-- No chunk of an upload counts from here on.
UPDATE uploads SET cancelled_at = timestamptz 'epoch' + %(cancelled_at)s::bigint * interval '1 microsecond'
WHERE tenant_id = %(tenant_id)s AND upload_id = %(upload_id)s AND cancelled_at IS NULL
