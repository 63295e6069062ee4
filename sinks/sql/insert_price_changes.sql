-- Changes of prices in the order of the log. One that is there already stays as it is.
INSERT INTO price_changes (tenant_id, product_id, log_offset, row_index, line, event_id, change_id, status, alert,
                           findings, price_before, new_price, price_after, currency, new_currency, version, occurred_at,
                           logged_at, source, metadata, held_offset, decided_by, decision_reason)
SELECT tenant_id, product_id, log_offset, row_index, line, event_id, change_id, status, alert,
       findings::jsonb, before_cents * 0.01, new_cents * 0.01, after_cents * 0.01, currency, new_currency, version,
       occurred_at, logged_at, source, metadata::json, held_offset, decided_by, decision_reason
FROM staged_price_changes
ON CONFLICT DO NOTHING
