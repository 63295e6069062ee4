-- The first rows that were refused of the message at this position, and how many there are.
SELECT line, pointer, code, detail, row, count(*) OVER () AS total
FROM row_errors
WHERE tenant_id = %s AND topic = %s AND partition = %s AND log_offset = %s
ORDER BY row_index, line
LIMIT %s
