-- What became of an event: its line, and those of its repeats, the applied one first, then as they lie in the log.
SELECT event_id, type, outcome, rows, applied, superseded, duplicate, conflict, rejected, code, detail, accepted_at,
       applied_at, topic, partition, log_offset
FROM ledger
WHERE tenant_id = %s AND event_id = %s
ORDER BY outcome <> 'applied', topic, partition, log_offset
LIMIT %s
