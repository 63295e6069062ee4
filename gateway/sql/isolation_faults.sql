-- Every way in which this login could see or change more than one tenant's rows: what is wrong, and what to do.
-- No rows: the catalogue knows of none. Extensions' own relations and functions are left out (pg_stat_statements).
WITH role AS (
    -- What the login is, and all that it can become: SET ROLE needs no privilege beside membership.
    SELECT oid, rolname, rolsuper, rolbypassrls, rolcreaterole, rolreplication
    FROM pg_roles WHERE rolname IN (session_user, current_user) OR pg_has_role(session_user, oid, 'MEMBER')
), schema AS (
    SELECT oid, nspname FROM pg_namespace WHERE nspname <> 'information_schema' AND NOT starts_with(nspname, 'pg_')
), relation AS (
    SELECT c.oid, c.relname, format('%I.%I', nspname, relname) AS name, relkind, relrowsecurity, relispartition,
           coalesce((SELECT option_value::boolean FROM pg_options_to_table(reloptions)
                     WHERE option_name = 'security_invoker'), false) AS invoker,
           EXISTS (SELECT FROM pg_attribute
                   WHERE attrelid = c.oid AND attname = 'tenant_id' AND NOT attisdropped) AS of_tenants,
           -- The writer's membership is a fault of its own (rule 1), and to revoke its grants would stop the sinks.
           (SELECT string_agg(quote_ident(rolname), ', ' ORDER BY rolname) FROM role
            WHERE has_any_column_privilege(role.oid, c.oid, 'SELECT')
              AND rolname <> 'tillstream_writer') AS readers,
           EXISTS (SELECT FROM role WHERE has_any_column_privilege(role.oid, c.oid, 'INSERT, UPDATE, REFERENCES')
                       OR has_table_privilege(role.oid, c.oid, 'DELETE, TRUNCATE, TRIGGER')) AS writable,
           (SELECT min(rolname) FROM role WHERE role.oid = c.relowner) AS owner
    FROM pg_class c JOIN schema ON schema.oid = relnamespace
    WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND relpersistence <> 't'
      AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype = 'e')
)
SELECT CASE WHEN rolsuper THEN 0 ELSE 1 END AS rule,
       format('role %I%s %s', rolname,
              CASE WHEN rolname <> session_user THEN format(', which %I can become,', session_user) END,
              string_agg(what, ' and ' ORDER BY what)) AS fault,
       'TILLSTREAM_READER_DATABASE_URL takes a login of its own, whose only role is tillstream_reader' AS remedy
FROM role, LATERAL (VALUES
    (rolsuper, 'is a superuser'),
    (rolbypassrls, 'has BYPASSRLS'),
    (rolcreaterole, 'may make roles (CREATEROLE)'),
    (rolreplication, 'may copy the whole server (REPLICATION)'),
    (rolname = 'tillstream_writer', 'writes for every tenant'),
    (rolname IN ('pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program'),
     'reaches the files of the server')) AS attribute (has, what)
WHERE has
GROUP BY rolname, rolsuper
UNION ALL
SELECT 2, format('role %I owns %s, and policies do not bind owners', owner, name),
       format('ALTER TABLE %s OWNER TO <who migrates>', name)
FROM relation WHERE owner IS NOT NULL
UNION ALL
SELECT 3, format('partition %s can be read directly, where its parent''s policy does not hold', name),
       format('REVOKE ALL ON %s FROM %s', name, readers)
FROM relation WHERE relispartition AND readers IS NOT NULL
UNION ALL
SELECT 4, format('%s can be written', name),
       format('REVOKE INSERT, UPDATE, DELETE, TRUNCATE, TRIGGER, REFERENCES ON %s FROM tillstream_reader', name)
FROM relation WHERE writable
UNION ALL
SELECT 4, format('role %I may create things in schema %I', rolname, nspname),
       format('REVOKE CREATE ON SCHEMA %I FROM %I, PUBLIC', nspname, rolname)
FROM role, schema WHERE has_schema_privilege(role.oid, schema.oid, 'CREATE')
UNION ALL
SELECT 4, format('role %I may create schemas', rolname),
       format('REVOKE CREATE ON DATABASE %I FROM %I, PUBLIC', current_database(), rolname)
FROM role WHERE has_database_privilege(role.oid, current_database(), 'CREATE')
UNION ALL
SELECT 5, format('table %s has a tenant_id but no row-level security', name),
       format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, and give it the policy of sinks/migrations', name)
FROM relation WHERE of_tenants AND NOT relispartition AND NOT relrowsecurity AND relkind IN ('r', 'p')
UNION ALL
SELECT 6, format('policy %I of %s lets in %s', polname, name, pg_get_expr(polqual, polrelid)),
       'a policy for reading is: USING (tenant_id = nullif(current_setting(''app.tenant_id'', true), ''''))'
FROM pg_policy JOIN relation ON relation.oid = polrelid
WHERE polpermissive AND polcmd IN ('r', '*') AND (0 = ANY (polroles) OR polroles && ARRAY(SELECT oid FROM role))
  AND pg_get_expr(polqual, polrelid) IS DISTINCT FROM
      '(tenant_id = NULLIF(current_setting(''app.tenant_id''::text, true), ''''::text))'
UNION ALL
SELECT 7, format('%s can be read and goes around row-level security: it is %s', name, CASE
           WHEN relkind = 'v' THEN 'a view without security_invoker'
           WHEN relkind = 'm' THEN 'a materialized view'
           WHEN relkind = 'f' THEN 'a foreign table'
           ELSE 'a table without tenant_id' END),
       CASE WHEN relkind = 'v' THEN format('ALTER VIEW %s SET (security_invoker = true)', name)
            ELSE format('REVOKE ALL ON %s FROM %s', name, readers) END
FROM relation
WHERE readers IS NOT NULL AND NOT relispartition AND CASE
    WHEN relkind = 'v' THEN NOT invoker
    WHEN relkind IN ('r', 'p') THEN NOT of_tenants AND relname <> 'sink_offsets'
    ELSE true END
UNION ALL
SELECT 8, format('function %s can be called and runs with its owner''s rights (SECURITY DEFINER)', pg_proc.oid::regprocedure),
       format('REVOKE EXECUTE ON FUNCTION %s FROM tillstream_reader, PUBLIC', pg_proc.oid::regprocedure)
FROM pg_proc JOIN schema ON schema.oid = pronamespace
WHERE prosecdef
  AND EXISTS (SELECT FROM role WHERE has_function_privilege(role.oid, pg_proc.oid, 'EXECUTE')
                  AND has_schema_privilege(role.oid, schema.oid, 'USAGE'))
  AND NOT EXISTS (SELECT FROM pg_depend
                  WHERE classid = 'pg_proc'::regclass AND objid = pg_proc.oid AND deptype = 'e')
ORDER BY rule, fault
