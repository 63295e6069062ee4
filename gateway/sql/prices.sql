-- The price of a product: the one in force, its limits, and the last 20 changes.
SELECT known.product_id, p.price::text AS price, p.currency,
       replace((p.since AT TIME ZONE 'UTC')::text, ' ', 'T') || 'Z' AS since, coalesce(p.version, 0) AS version,
       l.floor::text AS floor, l.ceiling::text AS ceiling,
       (SELECT coalesce(json_agg(json_build_object(
            'status', c.status, 'findings', c.findings, 'price_before', c.price_before::text,
            'new_price', c.new_price::text, 'price_after', c.price_after::text, 'new_currency', c.new_currency,
            'held_offset', CASE c.status WHEN 'held' THEN c.log_offset ELSE c.held_offset END,
            'occurred_at', replace((c.occurred_at AT TIME ZONE 'UTC')::text, ' ', 'T') || 'Z', 'source', c.source
        ) ORDER BY c.log_offset DESC, c.row_index DESC), '[]')
        FROM (SELECT * FROM price_changes WHERE tenant_id = {tenant} AND {where}
              ORDER BY log_offset DESC, row_index DESC LIMIT 20) c) AS changes
FROM (SELECT product_id FROM prices WHERE tenant_id = {tenant} AND {where}
      UNION SELECT product_id FROM price_limits WHERE tenant_id = {tenant} AND {where}
      UNION (SELECT product_id FROM price_changes WHERE tenant_id = {tenant} AND {where} LIMIT 1)) known
LEFT JOIN prices p ON p.tenant_id = {tenant} AND p.product_id = known.product_id
LEFT JOIN price_limits l ON l.tenant_id = {tenant} AND l.product_id = known.product_id
{limit}
