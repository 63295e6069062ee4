-- The first rows that were refused of the message at this position, and how many there are. Of its lines a gateway may
-- have refused some before the others were accepted: those lie in messages of their own, of the same request and body.
WITH own AS (
    SELECT topic, partition, log_offset, type, request_id, body_hash, first_line, last_line
    FROM ledger
    WHERE tenant_id = %(tenant_id)s AND topic = %(topic)s AND partition = %(partition)s AND log_offset = %(offset)s
), refused AS (
    SELECT e.row_index, e.line, e.pointer, e.code, e.detail, e.row, e.stage
    FROM own JOIN row_errors e USING (topic, partition, log_offset)
    WHERE e.tenant_id = %(tenant_id)s
    UNION ALL
    SELECT e.row_index, e.line, e.pointer, e.code, e.detail, e.row, e.stage
    FROM own
    JOIN ledger r ON r.tenant_id = %(tenant_id)s AND r.request_id = own.request_id AND r.body_hash = own.body_hash
                 AND r.type = %(rows_rejected)s AND r.type <> own.type AND r.outcome = 'applied'
    JOIN row_errors e ON e.tenant_id = %(tenant_id)s AND e.topic = r.topic AND e.partition = r.partition
                     AND e.log_offset = r.log_offset AND e.line BETWEEN own.first_line AND own.last_line
)
SELECT line, pointer, code, detail, row, count(*) OVER () AS total,
       count(*) FILTER (WHERE stage = 'gateway') OVER () AS before
FROM refused
ORDER BY line, row_index
LIMIT %(limit)s
