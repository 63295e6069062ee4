-- Movements as they were sent, with what became of each and the level after it, the newest first.
SELECT outcome, code, quantity, version,
       json_build_object(
           'kind', kind, 'quantity', moved, 'event_id', movement_id,
           'occurred_at', replace((occurred_at AT TIME ZONE 'UTC')::text, ' ', 'T') || 'Z',
           'expected_quantity', expected_quantity
       ) AS movement,
       event_id, line, replace((logged_at AT TIME ZONE 'UTC')::text, ' ', 'T') || 'Z' AS logged_at,
       log_offset AS "offset", row_index AS "row"
FROM stock_movements
WHERE tenant_id = {tenant} AND {where}
ORDER BY log_offset DESC, row_index DESC
{limit}
