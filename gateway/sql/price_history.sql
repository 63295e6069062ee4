-- Changes of prices with their verdicts, and decisions about held ones, the newest first.
SELECT line, product_id, status, findings, price_before::text AS price_before, new_price::text AS new_price,
       price_after::text AS price_after, currency, new_currency, version,
       CASE status WHEN 'held' THEN log_offset ELSE held_offset END AS held_offset,
       replace((occurred_at AT TIME ZONE 'UTC')::text, ' ', 'T') || 'Z' AS occurred_at,
       replace((logged_at AT TIME ZONE 'UTC')::text, ' ', 'T') || 'Z' AS logged_at,
       source, metadata, change_id, event_id, log_offset AS "offset", row_index AS "row", decided_by, decision_reason
FROM price_changes
WHERE tenant_id = {tenant} AND {where}
ORDER BY log_offset DESC, row_index DESC
{limit}
