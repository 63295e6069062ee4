-- Files of a tenant's records: asked for on the topic `exports`, written by a process beside a sink (sinks/exports).
CREATE TABLE exports (
    tenant_id    text        NOT NULL,
    export_id    uuid        NOT NULL,
    entity       text        NOT NULL,
    format       text        NOT NULL,
    gzip         boolean     NOT NULL,
    filters      jsonb       NOT NULL,  -- [[name, value], ...]
    state        text        NOT NULL
                 CHECK (state IN ('queued', 'running', 'done', 'failed', 'expired')),
    attempt      int         NOT NULL DEFAULT 0,  -- part of the file's name
    reason       text,                  -- why it failed
    rows_done    bigint      NOT NULL DEFAULT 0,
    rows_total   bigint,
    bytes        bigint,                -- of the file, compressed or not
    sha256       text,                  -- of the file, hexadecimal
    requested_at timestamptz NOT NULL,
    started_at   timestamptz,           -- of the attempt
    finished_at  timestamptz,
    expires_at   timestamptz,           -- the file goes then
    PRIMARY KEY (tenant_id, export_id)
);
-- Serves: the worker, which looks for what is to be done or to go; how many a tenant has open
CREATE INDEX exports_open ON exports (tenant_id, requested_at) WHERE state IN ('queued', 'running');
CREATE INDEX exports_files ON exports (expires_at) WHERE state = 'done';
-- Serves: GET /exports, the newest first
CREATE INDEX exports_newest ON exports (tenant_id, requested_at DESC, export_id DESC);

ALTER TABLE exports ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON exports FOR SELECT TO tillstream_reader
    USING (tenant_id = nullif(current_setting('app.tenant_id', true), ''));
CREATE POLICY writer ON exports TO tillstream_writer USING (true) WITH CHECK (true);
GRANT SELECT ON exports TO tillstream_reader;
GRANT SELECT, INSERT, UPDATE ON exports TO tillstream_writer;
