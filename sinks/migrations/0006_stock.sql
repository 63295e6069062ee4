-- Stock: the level of each product, and every movement with what became of it and the level after it.

-- As `stock.levels` has it. Reads by quantity and by time go through a tenant's levels: an index on what every movement
-- changes would cost each of them more than it saves the few who ask.
CREATE TABLE stock_levels (
    tenant_id     text        NOT NULL,
    product_id    text        NOT NULL,
    quantity      bigint      NOT NULL,
    version       bigint      NOT NULL,  -- movements applied so far
    updated_at    timestamptz NOT NULL,  -- when the message was appended that changed it last
    source_offset bigint      NOT NULL,  -- where that message lies in `stock`
    -- Serves: GET /stock, by product, and GET /stock/{product_id}
    PRIMARY KEY (tenant_id, product_id)
) PARTITION BY HASH (tenant_id);

-- A tenant's movements lie on one partition of `stock`, so that offset and row index tell them apart, and in order.
CREATE TABLE stock_movements (
    tenant_id         text        NOT NULL,
    product_id        text        NOT NULL,
    log_offset        bigint      NOT NULL,
    row_index         int         NOT NULL,
    line              int         NOT NULL,
    event_id          text        NOT NULL,  -- of the message
    movement_id       text,                  -- the sender's own, if any
    kind              text        NOT NULL,
    moved             bigint      NOT NULL,  -- the quantity as it was sent
    expected_quantity bigint,
    occurred_at       timestamptz,
    logged_at         timestamptz NOT NULL,
    outcome           text        NOT NULL CHECK (outcome IN ('applied', 'superseded', 'duplicate', 'rejected')),
    code              text,
    quantity          bigint      NOT NULL,  -- the level after it; of a duplicate, after the first
    version           bigint      NOT NULL,
    -- Serves: GET /stock/{product_id}/history, the newest first; and what a message did to the products it names
    -- (gateway/stock_outcomes.py)
    PRIMARY KEY (tenant_id, product_id, log_offset, row_index)
) PARTITION BY HASH (tenant_id);

DO $$
DECLARE
    parent text;
BEGIN
    FOR n IN 0..7 LOOP
        -- Room in each page, so that a level that changes stays there and its index entry with it.
        EXECUTE format('CREATE TABLE stock_levels_%s PARTITION OF stock_levels
                        FOR VALUES WITH (MODULUS 8, REMAINDER %s) WITH (fillfactor = 70)', n, n);
        EXECUTE format('CREATE TABLE stock_movements_%s PARTITION OF stock_movements
                        FOR VALUES WITH (MODULUS 8, REMAINDER %s)', n, n);
    END LOOP;
    FOREACH parent IN ARRAY ARRAY['stock_levels', 'stock_movements'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', parent);
        EXECUTE format('CREATE POLICY tenant ON %I FOR SELECT TO tillstream_reader
                        USING (tenant_id = nullif(current_setting(''app.tenant_id'', true), ''''))', parent);
        EXECUTE format('CREATE POLICY writer ON %I TO tillstream_writer USING (true) WITH CHECK (true)', parent);
        EXECUTE format('GRANT SELECT ON %I TO tillstream_reader', parent);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE ON %I TO tillstream_writer', parent);
    END LOOP;
END $$;
