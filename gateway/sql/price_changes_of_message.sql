-- What became of the changes of a message of `prices` that name these products, in its order; fields as of a verdict.
SELECT line, product_id, status, findings, price_before::text, new_price::text, price_after::text, currency,
       new_currency, version, CASE status WHEN 'held' THEN log_offset ELSE held_offset END
FROM price_changes
WHERE tenant_id = %s AND product_id = ANY (%s)
  AND log_offset = (SELECT log_offset FROM ledger
                    WHERE tenant_id = %s AND event_id = %s AND topic = %s AND outcome = 'applied' LIMIT 1)
ORDER BY row_index
