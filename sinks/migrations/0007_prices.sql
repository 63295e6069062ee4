-- Prices: the one in force of each product, every change with its verdict, and the limits that products have.

-- Of the verdicts, the last that came in force. A price that is only said again changes nothing.
CREATE TABLE prices (
    tenant_id     text           NOT NULL,
    product_id    text           NOT NULL,
    price         numeric(12, 2) NOT NULL,
    currency      text,                     -- null while nobody has named one
    since         timestamptz    NOT NULL,
    version       bigint         NOT NULL,  -- prices in force so far
    source_offset bigint         NOT NULL,  -- where the message lies in `prices`
    -- Serves: GET /prices/{product_id}
    PRIMARY KEY (tenant_id, product_id)
) PARTITION BY HASH (tenant_id);

-- A tenant's changes lie on one partition of `prices`, so that offset and row index tell them apart, and in order.
-- Decisions about held prices stand among the changes; `held_offset` says which change each is about.
CREATE TABLE price_changes (
    tenant_id       text        NOT NULL,
    product_id      text        NOT NULL,
    log_offset      bigint      NOT NULL,
    row_index       int         NOT NULL,
    line            int         NOT NULL,
    event_id        text        NOT NULL,  -- of the message
    change_id       text,                  -- the sender's own, if any
    status          text        NOT NULL CHECK (status IN ('accepted', 'anomaly', 'held', 'rejected', 'superseded')),
    alert           boolean     NOT NULL,  -- whether something about the price itself was found
    findings        jsonb       NOT NULL,  -- [{name, score, reason}]
    price_before    numeric(12, 2),
    new_price       numeric(12, 2),
    price_after     numeric(12, 2),
    currency        text,                  -- of the price in force after
    new_currency    text,
    version         bigint      NOT NULL,
    occurred_at     timestamptz NOT NULL,
    logged_at       timestamptz NOT NULL,
    source          text        NOT NULL,
    metadata        json,
    held_offset     bigint,
    decided_by      text,
    decision_reason text,
    -- Serves: GET /prices/{product_id} and its history, the newest first; and what a message did to the products it
    -- names (gateway/price_outcomes.py)
    PRIMARY KEY (tenant_id, product_id, log_offset, row_index)
) PARTITION BY HASH (tenant_id);
-- Serves: GET /price-alerts, the newest first
CREATE INDEX price_alerts ON price_changes (tenant_id, logged_at DESC, log_offset DESC, row_index DESC) WHERE alert;
-- Serves: what was decided about a held price
CREATE INDEX price_decisions ON price_changes (tenant_id, product_id, held_offset) WHERE held_offset IS NOT NULL;

CREATE TABLE price_limits (
    tenant_id  text   NOT NULL,
    product_id text   NOT NULL,
    floor      numeric(20, 2),  -- a direct producer may send more than a price can be
    ceiling    numeric(20, 2),
    log_offset bigint NOT NULL,
    PRIMARY KEY (tenant_id, product_id)
) PARTITION BY HASH (tenant_id);

DO $$
DECLARE
    parent text;
BEGIN
    FOREACH parent IN ARRAY ARRAY['prices', 'price_changes', 'price_limits'] LOOP
        FOR n IN 0..7 LOOP
            EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES WITH (MODULUS 8, REMAINDER %s)',
                           parent || '_' || n, parent, n);
        END LOOP;
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', parent);
        EXECUTE format('CREATE POLICY tenant ON %I FOR SELECT TO tillstream_reader
                        USING (tenant_id = nullif(current_setting(''app.tenant_id'', true), ''''))', parent);
        EXECUTE format('CREATE POLICY writer ON %I TO tillstream_writer USING (true) WITH CHECK (true)', parent);
        EXECUTE format('GRANT SELECT ON %I TO tillstream_reader', parent);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE ON %I TO tillstream_writer', parent);
    END LOOP;
END $$;
