-- What is known of refused rows of an upload, asked for by chunk and line: the message each came in, the place that its
-- version takes, and the last correction of it that was judged.
WITH came AS (
    SELECT DISTINCT ON (l.chunk, e.line)
           l.chunk, e.line, e.stage, e.row_index, l.event_id, l.topic, l.partition, l.log_offset, l.accepted_at,
           l.logged_at
    FROM unnest(%(chunks)s::int[], %(lines)s::int[]) AS wanted (chunk, line)
    JOIN ledger l ON l.tenant_id = %(tenant_id)s AND l.upload_id = %(upload_id)s AND l.chunk = wanted.chunk
                 AND l.correction IS NULL
    JOIN row_errors e ON e.tenant_id = %(tenant_id)s AND e.topic = l.topic AND e.partition = l.partition
                     AND e.log_offset = l.log_offset AND e.line = wanted.line
    ORDER BY l.chunk, e.line, l.log_offset
)
SELECT came.chunk, came.line, came.event_id, came.topic, came.partition,
       coalesce(good.log_offset, came.log_offset), coalesce(good.row_index, came.row_index),
       (extract(epoch FROM came.accepted_at) * 1000)::bigint,
       (extract(epoch FROM coalesce(good.logged_at, came.logged_at)) * 1000)::bigint,
       last.correction, last.event_id, last.body_hash, last.rejected > 0
FROM came
-- What a gateway refused lies in a message of its own, behind the good rows that were sent with it. Its place is before
-- the first of them that follows it in the chunk, with that one's version: of equal versions the first to come stays.
LEFT JOIN LATERAL (
    SELECT b.log_offset, b.logged_at, came.line - b.first_line - (
        SELECT count(*) FROM ledger r JOIN row_errors e USING (tenant_id, topic, partition, log_offset)
        WHERE tenant_id = %(tenant_id)s AND r.upload_id = %(upload_id)s AND r.chunk = came.chunk AND e.stage = 'gateway'
          AND e.line >= b.first_line AND e.line < came.line
    ) AS row_index
    FROM ledger b
    WHERE b.tenant_id = %(tenant_id)s AND b.upload_id = %(upload_id)s AND b.chunk = came.chunk AND b.type = %(type)s
      AND b.correction IS NULL AND b.outcome = 'applied' AND came.line BETWEEN b.first_line AND b.last_line
    LIMIT 1
) good ON came.stage = 'gateway'
LEFT JOIN LATERAL (
    SELECT c.correction, c.event_id, c.body_hash, c.rejected
    FROM ledger c
    WHERE c.tenant_id = %(tenant_id)s AND c.upload_id = %(upload_id)s AND c.chunk = came.chunk
      AND c.first_line = came.line AND c.correction IS NOT NULL AND c.outcome = 'applied'
    ORDER BY c.correction DESC LIMIT 1
) last ON true
