-- What was set aside and what was done about it last. `whole` gives the message or the row itself, too.
SELECT q.kind, q.topic, q.partition, q.log_offset, q.row_index, q.tenant_id, q.claimed, q.step, q.reason, q.detail,
       q.event_id, q.type, q.rows, q.line, q.natural_id, q.accepted_at, q.logged_at, q.dead_at, q.headers, q.key,
       q.payload_bytes, CASE WHEN %(whole)s THEN q.payload END AS payload, CASE WHEN %(whole)s THEN q.row END AS row,
       last.event_id AS redriven_as,
       CASE WHEN last.id IS NULL AND mended.found THEN 'corrected'
            WHEN last.id IS NULL THEN 'open'
            WHEN last.result = 'begun' THEN 'begun'
            WHEN line.outcome IS NULL THEN 'sent'
            WHEN line.outcome IN ('rejected', 'conflict') OR EXISTS (
                SELECT FROM row_errors e
                WHERE q.kind = 'row' AND e.tenant_id = line.tenant_id AND e.topic = line.topic
                  AND e.partition = line.partition AND e.log_offset = line.log_offset AND e.row_index = q.row_index)
            THEN 'failed'
            ELSE 'done' END AS status
FROM quarantine AS q
LEFT JOIN LATERAL (
    SELECT * FROM redrives AS r
    WHERE r.topic = q.topic AND r.partition = q.partition AND r.log_offset = q.log_offset AND r.result <> 'refused'
      AND (CASE WHEN q.kind = 'row' THEN q.row_index = ANY (r.row_indexes) ELSE r.row_indexes = '{}' END)
    ORDER BY r.id DESC LIMIT 1
) AS last ON true
LEFT JOIN LATERAL (
    SELECT true AS found
    FROM ledger AS own JOIN ledger AS c USING (tenant_id, upload_id, chunk)
    WHERE q.kind = 'row' AND own.tenant_id = q.tenant_id AND own.topic = q.topic AND own.partition = q.partition
      AND own.log_offset = q.log_offset AND c.first_line = q.line AND c.correction IS NOT NULL
      AND c.outcome = 'applied' AND c.rejected = 0
    LIMIT 1
) AS mended ON true
LEFT JOIN ledger AS line ON line.tenant_id = last.claimed AND line.topic = last.topic
                        AND line.event_id = last.event_id AND line.log_offset = last.sent_offset
WHERE (%(tenant_id)s::text IS NULL OR q.tenant_id = %(tenant_id)s)
  AND (NOT %(nobodys)s OR q.tenant_id IS NULL)
  AND (%(reason)s::text IS NULL OR q.reason = %(reason)s)
  AND (%(topic)s::text IS NULL OR q.topic = %(topic)s)
  AND (%(since)s::timestamptz IS NULL OR q.logged_at >= %(since)s)
  AND (%(until)s::timestamptz IS NULL OR q.logged_at < %(until)s)
  AND (%(partition)s::int IS NULL OR q.partition = %(partition)s)
  AND (%(log_offset)s::bigint IS NULL OR q.log_offset = %(log_offset)s)
  AND (%(row_index)s::int IS NULL OR q.row_index = %(row_index)s)
