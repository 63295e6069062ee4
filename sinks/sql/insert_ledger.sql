-- A line a message. One that is there already stays as it is: the message was accounted for before.
INSERT INTO ledger (tenant_id, topic, partition, log_offset, event_id, type, outcome, rows, applied, superseded,
                    duplicate, conflict, rejected, code, detail, accepted_at, logged_at,
                    request_id, body_hash, first_line, last_line, total_lines, upload_id, chunk, correction)
SELECT tenant_id, topic, partition, log_offset, event_id, type, outcome, rows, applied, superseded,
       duplicate, conflict, rejected, code, detail,
       timestamptz 'epoch' + accepted_ms * interval '1 millisecond',
       timestamptz 'epoch' + logged_ms * interval '1 millisecond',
       request_id, body_hash, first_line, last_line, total_lines, upload_id, chunk, correction
FROM unnest(%s::text[], %s::text[], %s::int[], %s::bigint[], %s::text[], %s::text[], %s::text[], %s::int[], %s::int[],
            %s::int[], %s::int[], %s::int[], %s::int[], %s::text[], %s::text[], %s::bigint[], %s::bigint[],
            %s::uuid[], %s::bytea[], %s::int[], %s::int[], %s::int[], %s::uuid[], %s::int[], %s::int[])
     AS line (tenant_id, topic, partition, log_offset, event_id, type, outcome, rows, applied, superseded,
              duplicate, conflict, rejected, code, detail, accepted_ms, logged_ms,
              request_id, body_hash, first_line, last_line, total_lines, upload_id, chunk, correction)
ON CONFLICT DO NOTHING
