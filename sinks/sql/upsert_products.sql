-- Newer versions of the staged products replace older ones. Returns what was applied, counted a source message.
-- Raises unique_violation of sku_taken when another product of the tenant has the sku.
WITH upserted AS (
    INSERT INTO products AS live (tenant_id, product_id, id, sku, name, price, currency, category, active, attributes,
                                  updated_at, version_at, version_offset, version_row)
    SELECT tenant_id, product_id, id, sku, name, price_cents * 0.01, currency, category, active, attributes::jsonb,
           updated_at, version_at, version_offset, version_row
    FROM staged_products
    ON CONFLICT (tenant_id, product_id) DO UPDATE SET
        sku = excluded.sku, name = excluded.name, price = excluded.price, currency = excluded.currency,
        category = excluded.category, active = excluded.active, attributes = excluded.attributes,
        updated_at = excluded.updated_at, version_at = excluded.version_at,
        version_offset = excluded.version_offset, version_row = excluded.version_row
    WHERE (excluded.version_at, excluded.version_offset, excluded.version_row)
        > (live.version_at, live.version_offset, live.version_row)
    RETURNING tenant_id, version_offset
)
SELECT tenant_id, version_offset, count(*) FROM upserted GROUP BY 1, 2
