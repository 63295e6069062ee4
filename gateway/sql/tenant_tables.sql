-- The tables of tenants that this login can read.
SELECT nspname, relname FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
WHERE relkind IN ('r', 'p') AND NOT relispartition AND relpersistence <> 't'
  AND EXISTS (SELECT FROM pg_attribute
              WHERE attrelid = pg_class.oid AND attname = 'tenant_id' AND NOT attisdropped)
  AND has_any_column_privilege(pg_class.oid, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE')
ORDER BY nspname, relname
