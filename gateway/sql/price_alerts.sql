-- Changes of prices about which something was found, the newest first, with what was decided about those held.
SELECT line, product_id, status, findings, price_before::text AS price_before, new_price::text AS new_price,
       price_after::text AS price_after, currency, new_currency, version,
       CASE status WHEN 'held' THEN log_offset ELSE held_offset END AS held_offset,
       replace((occurred_at AT TIME ZONE 'UTC')::text, ' ', 'T') || 'Z' AS occurred_at,
       replace((logged_at AT TIME ZONE 'UTC')::text, ' ', 'T') || 'Z' AS logged_at,
       source, metadata, change_id, event_id, log_offset AS "offset", row_index AS "row",
       CASE WHEN status = 'held' THEN (
           SELECT json_build_object(
               'decision', CASE d.status WHEN 'accepted' THEN 'approve' ELSE 'reject' END, 'decided_by', d.decided_by,
               'reason', d.decision_reason,
               'logged_at', replace((d.logged_at AT TIME ZONE 'UTC')::text, ' ', 'T') || 'Z'
           )
           FROM price_changes d
           WHERE d.tenant_id = {tenant} AND d.product_id = c.product_id AND d.held_offset = c.log_offset
             AND d.new_price = c.new_price AND d.status IN ('accepted', 'rejected')
           LIMIT 1
       ) END AS decision
FROM price_changes c
WHERE tenant_id = {tenant} AND alert AND {where}
ORDER BY c.logged_at DESC, c.log_offset DESC, c.row_index DESC
{limit}
