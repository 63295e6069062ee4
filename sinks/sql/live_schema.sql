-- Where the sinks' tables are, and whether this login owns them.
SELECT nspname, pg_has_role(relowner, 'USAGE')
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE pg_class.oid = to_regclass('sink_offsets')
