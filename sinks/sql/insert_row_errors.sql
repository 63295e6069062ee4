-- Rows that were refused, with why.
INSERT INTO row_errors (tenant_id, topic, partition, log_offset, row_index, line, code, detail, natural_id, stage,
                        pointer, errors, row)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT DO NOTHING
