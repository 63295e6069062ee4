-- Newer versions of the staged customers replace older ones. Returns what was applied, counted a source message.
WITH upserted AS (
    INSERT INTO customers AS live (tenant_id, customer_id, id, email, name, phone, country, attributes, updated_at,
                                   version_at, version_offset, version_row)
    SELECT tenant_id, customer_id, id, email, name, phone, country, attributes::jsonb, updated_at,
           version_at, version_offset, version_row
    FROM staged_customers
    ON CONFLICT (tenant_id, customer_id) DO UPDATE SET
        email = excluded.email, name = excluded.name, phone = excluded.phone, country = excluded.country,
        attributes = excluded.attributes, updated_at = excluded.updated_at,
        version_at = excluded.version_at, version_offset = excluded.version_offset, version_row = excluded.version_row
    WHERE (excluded.version_at, excluded.version_offset, excluded.version_row)
        > (live.version_at, live.version_offset, live.version_row)
    RETURNING tenant_id, version_offset
)
SELECT tenant_id, version_offset, count(*) FROM upserted GROUP BY 1, 2
