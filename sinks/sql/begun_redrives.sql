-- Notes of redrives of a message of which nobody knows whether Kafka took them, as sinks/redrives.py has notes.
SELECT note::text, topic, partition, log_offset AS "offset", array_to_string(row_indexes, ',') AS rows, tenant_id, claimed, original_id, n,
       event_id, by, why, patch::text, (extract(epoch FROM begun_at) * 1000)::bigint AS begun_ms, result, detail,
       sent_offset, NULL::bigint AS ended_ms
FROM redrives
WHERE topic = %s AND partition = %s AND log_offset = %s AND result = 'begun'
