-- What a tenant's newest messages came to, second by second: at most %(lines)s of each topic, of the last minute.
-- Each is found from the end of ledger's primary key, for a tenant lies on one partition of each topic.
WITH newest AS (
    SELECT line.* FROM unnest(%(topics)s::text[]) AS source (topic), LATERAL (
        SELECT applied_at, accepted_at, outcome, rows, applied, superseded, duplicate, conflict, rejected, correction,
               topic, partition, log_offset, type
        FROM ledger
        WHERE tenant_id = %(tenant_id)s AND ledger.topic = source.topic AND partition = %(partition)s
        ORDER BY log_offset DESC LIMIT %(lines)s
    ) AS line
), recent AS (
    -- A correction keeps the time at which its row was accepted first.
    SELECT *, CASE WHEN correction IS NULL THEN extract(epoch FROM applied_at - accepted_at) * 1000 END AS took
    FROM newest WHERE applied_at > clock_timestamp() - interval '1 minute'
), second AS (
    SELECT floor(extract(epoch FROM clock_timestamp() - applied_at))::int AS ago, sum(rows) AS rows
    FROM recent GROUP BY 1
), refused AS (
    -- Before they were accepted, so that the lines do not count them; at most so many that a look stays quick.
    SELECT count(*)::int AS rows FROM (
        SELECT FROM recent JOIN row_errors e USING (topic, partition, log_offset)
        WHERE e.tenant_id = %(tenant_id)s AND recent.type = %(rows_rejected)s AND recent.outcome = 'applied'
        LIMIT %(refused)s
    ) AS counted
)
SELECT coalesce((SELECT json_agg(json_build_object('ago', ago, 'rows', rows) ORDER BY ago) FROM second), '[]') AS seconds,
       coalesce(sum(rows), 0)::int + (SELECT rows FROM refused) AS rows,
       coalesce(sum(applied), 0)::int AS applied, coalesce(sum(superseded), 0)::int AS superseded,
       coalesce(sum(duplicate), 0)::int AS duplicate, coalesce(sum(conflict), 0)::int AS conflict,
       coalesce(sum(rejected), 0)::int + (SELECT rows FROM refused) AS rejected,
       (percentile_disc(0.5) WITHIN GROUP (ORDER BY took))::float8 AS median_ms,
       (percentile_disc(0.95) WITHIN GROUP (ORDER BY took))::float8 AS p95_ms
FROM recent
