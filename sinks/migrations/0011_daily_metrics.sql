-- Figures of a tenant's days: one row a day and currency, made again whenever an order of that day changed.
--
-- Whoever changes orders leaves a mark on the days concerned, in the same transaction: triggers do it, so that a sink, a
-- replay and somebody with psql all do. A refresher takes a lock on a day, deletes the marks that it sees, and counts
-- the day again in a later statement of that transaction: what it does not see has left a mark that stays.

-- A day is one of UTC, by `order_date`. Revenue, and with it the average, leaves out what was cancelled or refunded.
CREATE TABLE tenant_daily_metrics (
    tenant_id     text           NOT NULL,
    day           date           NOT NULL,
    currency      text           NOT NULL,
    orders        bigint         NOT NULL,  -- all of them
    cancelled     bigint         NOT NULL,
    refunded      bigint         NOT NULL,
    revenue       numeric(24, 2) NOT NULL,
    customers     bigint         NOT NULL,  -- who ordered, each once; orders without a customer_id name nobody
    average_order numeric(24, 2) GENERATED ALWAYS AS
        (round(revenue / nullif(orders - cancelled - refunded, 0), 2)) STORED,
    -- Serves: GET /metrics/daily, the newest first
    PRIMARY KEY (tenant_id, day, currency)
);

-- Days to count again. Append-only: a mark that is there may be one that a refresher has already seen. No index: it is
-- read whole, and is empty when all is counted.
CREATE TABLE metrics_marks (
    tenant_id text NOT NULL,
    day       date NOT NULL
);

-- Up to when what was accepted is in tenant_daily_metrics too; of ingestion.unique only.
ALTER TABLE sink_offsets ADD COLUMN counted_up_to timestamptz;

-- An insert has no transition table: to copy every row there costs sinks 0.9 µs of 10. A session that inserts the orders
-- in its staging table, and no others, says so by app.orders_staged; of one that does not, every day is marked.
-- The schema is that of the tables, whatever a replay has set. date_bin, for a time zone's name is looked up a row.
CREATE FUNCTION mark_inserted_days() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF current_setting('app.orders_staged', true) = 'on' THEN
        INSERT INTO metrics_marks SELECT tenant_id, (midnight AT TIME ZONE 'UTC')::date FROM (
            SELECT DISTINCT tenant_id, date_bin('1 day', order_date, '1970-01-01Z') AS midnight FROM pg_temp.staged_orders
        ) AS changed;
    ELSE
        INSERT INTO metrics_marks SELECT tenant_id, (midnight AT TIME ZONE 'UTC')::date FROM (
            SELECT DISTINCT tenant_id, date_bin('1 day', order_date, '1970-01-01Z') AS midnight FROM orders
        ) AS changed;
    END IF;
    RETURN NULL;
END $$;
CREATE FUNCTION mark_changed_days() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO metrics_marks SELECT DISTINCT tenant_id, (order_date AT TIME ZONE 'UTC')::date FROM old_orders;
    IF TG_OP = 'UPDATE' THEN
        INSERT INTO metrics_marks SELECT DISTINCT tenant_id, (order_date AT TIME ZONE 'UTC')::date FROM new_orders;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER mark_days_inserted AFTER INSERT ON orders
    FOR EACH STATEMENT EXECUTE FUNCTION mark_inserted_days();
CREATE TRIGGER mark_days_updated AFTER UPDATE ON orders REFERENCING OLD TABLE AS old_orders NEW TABLE AS new_orders
    FOR EACH STATEMENT EXECUTE FUNCTION mark_changed_days();
CREATE TRIGGER mark_days_deleted AFTER DELETE ON orders REFERENCING OLD TABLE AS old_orders
    FOR EACH STATEMENT EXECUTE FUNCTION mark_changed_days();

ALTER TABLE tenant_daily_metrics ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON tenant_daily_metrics FOR SELECT TO tillstream_reader
    USING (tenant_id = nullif(current_setting('app.tenant_id', true), ''));
CREATE POLICY writer ON tenant_daily_metrics TO tillstream_writer USING (true) WITH CHECK (true);
GRANT SELECT ON tenant_daily_metrics TO tillstream_reader;
GRANT SELECT, INSERT, UPDATE, DELETE ON tenant_daily_metrics TO tillstream_writer;
-- Nobody but the sinks needs to read marks.
ALTER TABLE metrics_marks ENABLE ROW LEVEL SECURITY;
CREATE POLICY writer ON metrics_marks TO tillstream_writer USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, DELETE ON metrics_marks TO tillstream_writer;

-- Serves: GET /metrics/stock-outs. GET /metrics/price-anomalies uses the index price_alerts, GET /metrics/top-products
-- orders_newest and the primary key of order_items.
CREATE INDEX stock_outs ON stock_movements (tenant_id, logged_at DESC) INCLUDE (product_id)
    WHERE outcome = 'applied' AND quantity <= 0 AND kind NOT IN ('received', 'returned');

-- The orders that are there.
INSERT INTO metrics_marks SELECT DISTINCT tenant_id, (order_date AT TIME ZONE 'UTC')::date FROM orders;
