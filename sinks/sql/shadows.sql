-- The schemas that replays made, in use or left behind: a shadow has its own sink_offsets.
SELECT nspname FROM pg_namespace
WHERE starts_with(nspname, %s)
  AND EXISTS (SELECT FROM pg_class WHERE relnamespace = pg_namespace.oid AND relname = 'sink_offsets')
ORDER BY nspname
