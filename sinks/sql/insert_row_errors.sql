-- Rows that were refused, with why.
INSERT INTO row_errors (tenant_id, topic, partition, log_offset, row_index, line, code, detail, natural_id, stage,
                        pointer, errors, row)
SELECT * FROM unnest(%s::text[], %s::text[], %s::int[], %s::bigint[], %s::int[], %s::int[], %s::text[], %s::text[],
                     %s::text[], %s::text[], %s::text[], %s::jsonb[], %s::text[])
ON CONFLICT DO NOTHING
