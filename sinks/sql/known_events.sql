-- Which of these messages the ledger has already: by where they lie, or applied under the same event id elsewhere on
-- their topic: a direct producer's ids may be the same on another.
SELECT wanted.n, ledger.partition = wanted.partition AND ledger.log_offset = wanted.log_offset AS same_message
FROM unnest(%s::text[], %s::text[], %s::text[], %s::int[], %s::bigint[]) WITH ORDINALITY
     AS wanted (tenant_id, event_id, topic, partition, log_offset, n)
JOIN ledger ON ledger.tenant_id = wanted.tenant_id AND ledger.topic = wanted.topic
           AND ledger.event_id = wanted.event_id AND ledger.outcome = 'applied'
UNION
SELECT wanted.n, true
FROM unnest(%s::text[], %s::text[], %s::int[], %s::bigint[]) WITH ORDINALITY
     AS wanted (tenant_id, topic, partition, log_offset, n)
JOIN ledger USING (tenant_id, topic, partition, log_offset)
