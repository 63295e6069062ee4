-- Which of these messages the ledger has already: by where they lie, or applied under the same event id elsewhere.
SELECT wanted.n, ledger.topic = wanted.topic AND ledger.partition = wanted.partition
                 AND ledger.log_offset = wanted.log_offset AS same_message
FROM unnest(%s::text[], %s::text[], %s::text[], %s::int[], %s::bigint[]) WITH ORDINALITY
     AS wanted (tenant_id, event_id, topic, partition, log_offset, n)
JOIN ledger ON ledger.tenant_id = wanted.tenant_id
           AND ledger.event_id = wanted.event_id AND ledger.outcome = 'applied'
UNION
SELECT wanted.n, true
FROM unnest(%s::text[], %s::text[], %s::int[], %s::bigint[]) WITH ORDINALITY
     AS wanted (tenant_id, topic, partition, log_offset, n)
JOIN ledger USING (tenant_id, topic, partition, log_offset)
