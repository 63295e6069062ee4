-- How a redrive ended that was begun.
UPDATE redrives SET result = %(result)s, sent_offset = %(sent_offset)s, detail = %(detail)s,
                    ended_at = to_timestamp(%(ended_ms)s / 1000.0)
WHERE note = %(note)s AND result = 'begun' AND %(result)s <> 'begun'
