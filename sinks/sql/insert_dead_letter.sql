-- A message that was set aside. One that is there already stays as it is.
INSERT INTO dead_letters (topic, partition, log_offset, tenant_id, claimed, step, reason, detail, event_id, type, rows,
                          accepted_at, logged_at, dead_at, headers, key, payload, payload_bytes)
VALUES (%(topic)s, %(partition)s, %(log_offset)s, %(tenant_id)s, %(claimed)s, %(step)s, %(reason)s, %(detail)s,
        %(event_id)s, %(type)s, %(rows)s,
        timestamptz 'epoch' + %(accepted_ms)s::bigint * interval '1 millisecond',
        timestamptz 'epoch' + %(logged_ms)s::bigint * interval '1 millisecond',
        timestamptz 'epoch' + %(dead_ms)s::bigint * interval '1 millisecond',
        %(headers)s, %(key)s, %(payload)s, %(payload_bytes)s)
ON CONFLICT DO NOTHING
