-- The tables of a schema that have a tenant_id: columns in their order with types, generated ones left out; the primary
-- key; and the other unique keys, as JSON.
SELECT relname, names, types,
       (SELECT array_agg(attname ORDER BY n) FROM pg_index
        CROSS JOIN unnest(indkey) WITH ORDINALITY AS part (attnum, n)
        JOIN pg_attribute USING (attnum)
        WHERE indrelid = pg_class.oid AND attrelid = pg_class.oid AND indisprimary) AS key,
       (SELECT coalesce(jsonb_agg(columns), '[]') FROM (
            SELECT jsonb_agg(attname ORDER BY n) AS columns FROM pg_index
            CROSS JOIN unnest(indkey) WITH ORDINALITY AS part (attnum, n)
            JOIN pg_attribute USING (attnum)
            WHERE indrelid = pg_class.oid AND attrelid = pg_class.oid AND indisunique AND NOT indisprimary
            GROUP BY indexrelid) AS other) AS others
FROM pg_class
CROSS JOIN LATERAL (
    SELECT array_agg(attname ORDER BY attnum) AS names, array_agg(atttypid::regtype::text ORDER BY attnum) AS types
    FROM pg_attribute WHERE attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
) AS column_
WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %s) AND relkind IN ('r', 'p') AND NOT relispartition AND 'tenant_id' = ANY (names)
ORDER BY relname
