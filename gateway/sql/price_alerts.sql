-- Changes of prices about which something was found, the newest first; with what was decided about those held, or which
-- later price took the place of one before anybody had decided. One with neither waits.
SELECT line, product_id, status, findings, price_before::text AS price_before, new_price::text AS new_price,
       price_after::text AS price_after, currency, new_currency, version,
       CASE status WHEN 'held' THEN log_offset ELSE held_offset END AS held_offset,
       replace((occurred_at AT TIME ZONE 'UTC')::text, ' ', 'T') || 'Z' AS occurred_at,
       replace((logged_at AT TIME ZONE 'UTC')::text, ' ', 'T') || 'Z' AS logged_at,
       source, metadata, change_id, event_id, log_offset AS "offset", row_index AS "row", decision,
       CASE WHEN status = 'held' AND decision IS NULL THEN (
           -- As streams let go of what is held (streams/prices.py): the product's next price does that, whether it is
           -- held, comes in force, or says the one in force again; but none that happened before the held one.
           SELECT json_build_object(
               'status', n.status, 'new_price', n.new_price::text, 'new_currency', n.new_currency,
               'event_id', n.event_id,
               'logged_at', replace((n.logged_at AT TIME ZONE 'UTC')::text, ' ', 'T') || 'Z'
           )
           FROM price_changes n
           WHERE n.tenant_id = {tenant} AND n.product_id = c.product_id
             AND (n.log_offset, n.row_index) > (c.log_offset, c.row_index) AND n.held_offset IS NULL
             AND (n.status = 'held' OR n.status IN ('accepted', 'anomaly')
                  AND (n.occurred_at >= c.occurred_at OR n.status = 'accepted' AND n.price_before = n.price_after))
           ORDER BY n.log_offset, n.row_index
           LIMIT 1
       ) END AS superseded_by
FROM price_changes c
LEFT JOIN LATERAL (
    SELECT json_build_object(
        'decision', CASE d.status WHEN 'accepted' THEN 'approve' ELSE 'reject' END, 'decided_by', d.decided_by,
        'reason', d.decision_reason,
        'logged_at', replace((d.logged_at AT TIME ZONE 'UTC')::text, ' ', 'T') || 'Z'
    ) AS decision
    FROM price_changes d
    WHERE d.tenant_id = {tenant} AND d.product_id = c.product_id AND d.held_offset = c.log_offset
      AND d.new_price = c.new_price AND d.status IN ('accepted', 'rejected')
    LIMIT 1
) decided ON c.status = 'held'
WHERE tenant_id = {tenant} AND alert AND {where}
ORDER BY c.logged_at DESC, c.log_offset DESC, c.row_index DESC
{limit}
