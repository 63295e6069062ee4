-- What is there of these products, and of those that hold one of these skus.
WITH wanted AS (
    SELECT DISTINCT * FROM unnest(%s::text[], %s::text[], %s::text[]) AS wanted (tenant_id, product_id, sku)
), concerned AS (
    SELECT tenant_id, product_id FROM wanted
    UNION
    SELECT tenant_id, holder.product_id FROM wanted JOIN products AS holder USING (tenant_id, sku)
)
SELECT tenant_id, product_id, (extract(epoch FROM version_at) * 1000000)::bigint - 946684800000000, version_offset,
       version_row, sku
FROM concerned JOIN products USING (tenant_id, product_id)
