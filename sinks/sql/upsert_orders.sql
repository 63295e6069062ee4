-- Newer versions of the staged orders replace older ones, and applied_orders says which: their items follow in
-- insert_items.sql. Returns what was applied, counted a source message.
WITH upserted AS (
    INSERT INTO orders AS live (tenant_id, external_order_id, id, customer_id, customer_name, customer_email,
                                total_amount, currency, order_status, order_date, raw_payload, updated_at,
                                version_at, version_offset, version_row)
    SELECT tenant_id, external_order_id, id, customer_id, customer_name, customer_email,
           total_cents * 0.01, currency, order_status, order_date, raw_payload::jsonb, updated_at,
           version_at, version_offset, version_row
    FROM staged_orders
    ON CONFLICT (tenant_id, external_order_id) DO UPDATE SET
        customer_id = excluded.customer_id, customer_name = excluded.customer_name,
        customer_email = excluded.customer_email, total_amount = excluded.total_amount, currency = excluded.currency,
        order_status = excluded.order_status, order_date = excluded.order_date, raw_payload = excluded.raw_payload,
        updated_at = excluded.updated_at, version_at = excluded.version_at,
        version_offset = excluded.version_offset, version_row = excluded.version_row,
        revision = live.revision + 1
    WHERE (excluded.version_at, excluded.version_offset, excluded.version_row)
        > (live.version_at, live.version_offset, live.version_row)
    RETURNING tenant_id, external_order_id, order_date, version_offset, version_row, revision > 0 AS replaced
), applied AS (
    INSERT INTO applied_orders
    SELECT tenant_id, external_order_id, order_date, version_offset, version_row, replaced FROM upserted
    RETURNING tenant_id, version_offset
)
SELECT tenant_id, version_offset, count(*) FROM applied GROUP BY 1, 2
