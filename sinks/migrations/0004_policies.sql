-- What the rows of a tenant must be, as of the stored offsets: policies are folded in the order of the log, so that a
-- rebuilt database judges each row as the first one did. Nobody but the sinks needs to read it.
CREATE TABLE ingestion_policies (
    tenant_id    text   NOT NULL PRIMARY KEY,
    currencies   text[] NOT NULL,
    order_totals text   NOT NULL CHECK (order_totals IN ('exact', 'at_least', 'any')),
    log_offset   bigint NOT NULL
);
ALTER TABLE ingestion_policies ENABLE ROW LEVEL SECURITY;
CREATE POLICY writer ON ingestion_policies TO tillstream_writer USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE ON ingestion_policies TO tillstream_writer;
