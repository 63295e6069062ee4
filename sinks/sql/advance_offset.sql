-- Compare-and-swap: nobody has moved this offset since we read it. No row comes back where somebody has.
UPDATE sink_offsets SET next_offset = %(next)s,
    applied_up_to = greatest(applied_up_to, timestamptz 'epoch' + %(up_to_ms)s::bigint * interval '1 millisecond')
WHERE topic = %(topic)s AND partition = %(partition)s AND topic_id = %(topic_id)s AND next_offset = %(expected)s
RETURNING next_offset
