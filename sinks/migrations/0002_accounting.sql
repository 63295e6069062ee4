-- Every row accounted for: which request and which lines a message carried, why a row was refused and what it was,
-- uploads, and the tenants themselves.

-- A request is a POST or a chunk of an upload; its messages carry lines first_line to last_line of total_lines, and the
-- first 16 bytes of the SHA-256 of its body.
ALTER TABLE ledger
    ADD COLUMN request_id  uuid,
    ADD COLUMN body_hash   bytea,
    ADD COLUMN first_line  int,
    ADD COLUMN last_line   int,
    ADD COLUMN total_lines int,
    ADD COLUMN upload_id   uuid,
    ADD COLUMN chunk       int;
-- Serves: what was answered to this Idempotency-Key? (gateway/idempotency.py)
CREATE INDEX ledger_request ON ledger (tenant_id, request_id) WHERE request_id IS NOT NULL;
-- Serves: how far is this upload? (gateway/uploads.py)
CREATE INDEX ledger_upload ON ledger (tenant_id, upload_id, chunk) WHERE upload_id IS NOT NULL;
-- Serves: what became of this event? and: has it been applied already? (gateway/events.py, sinks/sql/known_events.sql)
CREATE INDEX ledger_event ON ledger (tenant_id, event_id) INCLUDE (outcome);
DROP INDEX ledger_applied_event;

-- code, pointer and detail are those of the first error of the row; errors has them all. The row as JSON, or what came
-- in its place.
ALTER TABLE row_errors
    ADD COLUMN stage   text NOT NULL DEFAULT 'sink' CHECK (stage IN ('gateway', 'sink')),
    ADD COLUMN pointer text NOT NULL DEFAULT '',
    ADD COLUMN errors  jsonb,
    ADD COLUMN row     text;

-- When the newest source message of a partition was appended that is applied; of ingestion.unique only.
ALTER TABLE sink_offsets ADD COLUMN applied_up_to timestamptz;
GRANT SELECT ON sink_offsets TO tillstream_reader;

CREATE TABLE uploads (
    tenant_id    text        NOT NULL,
    upload_id    uuid        NOT NULL,
    entity       text        NOT NULL CHECK (entity IN ('customers', 'products', 'orders')),
    name         text,
    opened_at    timestamptz NOT NULL,
    expires_at   timestamptz NOT NULL,
    chunks       int CHECK (chunks > 0),  -- how many there are, once somebody has said so
    completed_at timestamptz,
    cancelled_at timestamptz,
    PRIMARY KEY (tenant_id, upload_id)
);

-- The topic `tenants`, for joins and people. Gateways authenticate from the topic, never from here.
CREATE TABLE tenants (
    tenant_id  text        NOT NULL PRIMARY KEY,
    name       text        NOT NULL,
    currency   text        NOT NULL,
    limits     jsonb       NOT NULL,
    policies   jsonb       NOT NULL,
    keys       jsonb       NOT NULL,  -- [{key_id, created_at_us, expires_at_us}]; no hashes
    log_offset bigint      NOT NULL,
    changed_at timestamptz NOT NULL
);

DO $$
DECLARE
    parent text;
BEGIN
    FOREACH parent IN ARRAY ARRAY['uploads', 'tenants'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', parent);
        EXECUTE format('CREATE POLICY tenant ON %I FOR SELECT TO tillstream_reader
                        USING (tenant_id = nullif(current_setting(''app.tenant_id'', true), ''''))', parent);
        EXECUTE format('CREATE POLICY writer ON %I TO tillstream_writer USING (true) WITH CHECK (true)', parent);
        EXECUTE format('GRANT SELECT ON %I TO tillstream_reader', parent);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO tillstream_writer', parent);
    END LOOP;
END $$;
