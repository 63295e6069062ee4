-- What was set aside, and what operators did about it.

-- The topic `dead-letters`, a line a message. (topic, partition, log_offset) is where the message lies on its source
-- topic, as in the ledger, so that one that was set aside twice, after a crash, is here once.
CREATE TABLE dead_letters (
    topic         text        NOT NULL,
    partition     int         NOT NULL,
    log_offset    bigint      NOT NULL,
    tenant_id     text,                  -- null unless key and value name the same tenant: only operators see it then
    claimed       text        NOT NULL,  -- the key as text; the ledger has its line under it
    step          text        NOT NULL,  -- dedup, stock, prices or sink
    reason        text        NOT NULL,
    detail        text        NOT NULL,
    event_id      text        NOT NULL,
    type          text        NOT NULL,
    rows          int         NOT NULL,
    accepted_at   timestamptz NOT NULL,
    logged_at     timestamptz NOT NULL,
    dead_at       timestamptz NOT NULL,
    headers       jsonb       NOT NULL,  -- as text, for people
    key           bytea,
    payload       bytea,                 -- the first megabyte at most
    payload_bytes int         NOT NULL,  -- of all of it
    PRIMARY KEY (topic, partition, log_offset)
);
-- Serves: tillstream dlq list --tenant, the newest first
CREATE INDEX dead_letters_of_tenant ON dead_letters (tenant_id, logged_at DESC);

-- Who sent what once more, when, why, and how that ended. Nobody but operators reads it.
CREATE TABLE redrives (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic       text        NOT NULL,
    partition   int         NOT NULL,
    log_offset  bigint      NOT NULL,
    row_indexes int[]       NOT NULL,    -- of a message whose rows are sent; empty for all of it
    tenant_id   text,
    claimed     text        NOT NULL,
    original_id text        NOT NULL,    -- the event that came first
    n           int CHECK (n > 0),       -- null where it was refused
    event_id    text,                    -- under which it was sent: <original_id>~r<n>
    by          text        NOT NULL CHECK (by <> ''),
    why         text        NOT NULL CHECK (why <> ''),
    patch       jsonb,
    begun_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at    timestamptz,
    -- begun: whether Kafka took it is unknown, and it is sent again under the same id
    result      text        NOT NULL CHECK (result IN ('begun', 'sent', 'refused')),
    detail      text,
    sent_offset bigint,
    -- Two operators at once cannot send the same under two ids.
    UNIQUE (claimed, topic, original_id, n)
);
-- Serves: what was done about this letter?
CREATE INDEX redrives_of_letter ON redrives (topic, partition, log_offset);

DO $$
DECLARE
    parent text;
BEGIN
    FOREACH parent IN ARRAY ARRAY['dead_letters', 'redrives'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', parent);
        EXECUTE format('CREATE POLICY writer ON %I TO tillstream_writer USING (true) WITH CHECK (true)', parent);
        EXECUTE format('GRANT SELECT, INSERT ON %I TO tillstream_writer', parent);
    END LOOP;
END $$;
CREATE POLICY tenant ON dead_letters FOR SELECT TO tillstream_reader
    USING (tenant_id = nullif(current_setting('app.tenant_id', true), ''));
GRANT SELECT ON dead_letters TO tillstream_reader;
GRANT UPDATE (ended_at, result, detail, sent_offset) ON redrives TO tillstream_writer;

-- Everything that was set aside: whole messages, and rows that were quarantined out of good ones. Movements and prices
-- that were rejected are not here: that was a verdict, and theirs to ask for again.
CREATE VIEW quarantine WITH (security_invoker = true) AS
SELECT 'message' AS kind, topic, partition, log_offset, NULL::int AS row_index, tenant_id, claimed, step, reason, detail,
       event_id, type, rows, NULL::int AS line, NULL::text AS natural_id, accepted_at, logged_at, dead_at, headers, key,
       payload, payload_bytes, NULL::text AS row
FROM dead_letters
UNION ALL
SELECT 'row', topic, partition, log_offset, row_index, tenant_id, tenant_id, 'sink', row_errors.code,
       coalesce(nullif(row_errors.pointer, '') || ': ', '') || row_errors.detail, event_id, type, 1, line, natural_id,
       accepted_at, logged_at, applied_at, NULL, NULL, NULL, NULL, row
FROM row_errors JOIN ledger USING (tenant_id, topic, partition, log_offset)
WHERE stage = 'sink' AND type IN ('tillstream.customers.v1', 'tillstream.products.v1', 'tillstream.orders.v1');
GRANT SELECT ON quarantine TO tillstream_reader, tillstream_writer;
