-- A redrive that is known already, by its note or by the id that it was sent under, stays as it is.
INSERT INTO redrives (note, topic, partition, log_offset, row_indexes, tenant_id, claimed, original_id, n, event_id, by,
                      why, patch, begun_at, ended_at, result, detail, sent_offset)
VALUES (%(note)s, %(topic)s, %(partition)s, %(offset)s, string_to_array(%(rows)s, ',')::int[], %(tenant_id)s,
        %(claimed)s, %(original_id)s, %(n)s, %(event_id)s, %(by)s, %(why)s, %(patch)s::jsonb, to_timestamp(%(begun_ms)s / 1000.0),
        to_timestamp(%(ended_ms)s / 1000.0), %(result)s, %(detail)s, %(sent_offset)s)
ON CONFLICT DO NOTHING
