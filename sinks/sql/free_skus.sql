-- Frees the skus of these products, so that one statement may pass them round.
UPDATE products AS live SET sku = chr(1) || live.id::text
FROM unnest(%s::text[], %s::text[]) AS giving (tenant_id, product_id)
WHERE live.tenant_id = giving.tenant_id AND live.product_id = giving.product_id
