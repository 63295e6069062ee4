-- What ingestion is folded into: offsets, the ledger, what was refused, and the merchants' records.
--
-- Roles: the owner (who runs this) migrates; tillstream_writer is what the sinks are, tillstream_reader what reads run
-- as. Both are group roles without login. Grants stand on parents only: a partition queried directly would bypass its
-- parent's policy.

DO $$
BEGIN
    -- Roles belong to the cluster, not the database: another database may have made them.
    PERFORM pg_advisory_xact_lock(7470001);
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'tillstream_writer') THEN
        CREATE ROLE tillstream_writer NOLOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'tillstream_reader') THEN
        CREATE ROLE tillstream_reader NOLOGIN;
    END IF;
END $$;

-- The next offset to read, moved in the transaction that writes the rows. topic_id is Kafka's UUID of the topic.
CREATE TABLE sink_offsets (
    topic       text   NOT NULL,
    partition   int    NOT NULL,
    topic_id    text   NOT NULL,
    next_offset bigint NOT NULL,
    PRIMARY KEY (topic, partition)
);

-- One line an accepted message; (topic, partition, log_offset) is where it lies on its source topic.
CREATE TABLE ledger (
    tenant_id   text        NOT NULL,
    topic       text        NOT NULL,
    partition   int         NOT NULL,
    log_offset  bigint      NOT NULL,
    event_id    text        NOT NULL,
    type        text        NOT NULL,
    outcome     text        NOT NULL CHECK (outcome IN ('applied', 'duplicate', 'conflict', 'rejected')),
    rows        int         NOT NULL,
    applied     int         NOT NULL DEFAULT 0,
    superseded  int         NOT NULL DEFAULT 0,
    duplicate   int         NOT NULL DEFAULT 0,
    conflict    int         NOT NULL DEFAULT 0,
    rejected    int         NOT NULL DEFAULT 0,
    code        text,
    detail      text,
    accepted_at timestamptz NOT NULL,
    logged_at   timestamptz NOT NULL,
    applied_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, topic, partition, log_offset),
    CHECK (rows = applied + superseded + duplicate + conflict + rejected)
);
-- Serves: has this event been applied already? (sinks/sql/known_events.sql)
CREATE INDEX ledger_applied_event ON ledger (tenant_id, event_id) WHERE outcome = 'applied';

-- A row that was refused after it had been accepted.
CREATE TABLE row_errors (
    tenant_id  text   NOT NULL,
    topic      text   NOT NULL,
    partition  int    NOT NULL,
    log_offset bigint NOT NULL,
    row_index  int    NOT NULL,
    line       int    NOT NULL,
    code       text   NOT NULL,
    detail     text   NOT NULL,
    natural_id text,
    PRIMARY KEY (tenant_id, topic, partition, log_offset, row_index)
);

CREATE TABLE customers (
    tenant_id      text        NOT NULL,
    customer_id    text        NOT NULL CHECK (length(customer_id) BETWEEN 1 AND 100),
    id             uuid        NOT NULL,
    email          text,
    name           text,
    phone          text,
    country        text,
    attributes     jsonb CHECK (jsonb_typeof(attributes) = 'object'),
    updated_at     timestamptz CHECK (updated_at >= '1970-01-01Z' AND updated_at < '2200-01-01Z'),
    version_at     timestamptz NOT NULL,
    version_offset bigint      NOT NULL,
    version_row    int         NOT NULL,
    PRIMARY KEY (tenant_id, customer_id)
) PARTITION BY HASH (tenant_id);

CREATE TABLE products (
    tenant_id      text          NOT NULL,
    product_id     text          NOT NULL CHECK (length(product_id) BETWEEN 1 AND 100),
    id             uuid          NOT NULL,
    sku            text          NOT NULL CHECK (length(sku) BETWEEN 1 AND 100),
    name           text          NOT NULL CHECK (name <> ''),
    price          numeric(12,2) NOT NULL CHECK (price >= 0),
    currency       text          NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    category       text,
    active         boolean       NOT NULL,
    attributes     jsonb CHECK (jsonb_typeof(attributes) = 'object'),
    updated_at     timestamptz CHECK (updated_at >= '1970-01-01Z' AND updated_at < '2200-01-01Z'),
    version_at     timestamptz   NOT NULL,
    version_offset bigint        NOT NULL,
    version_row    int           NOT NULL,
    PRIMARY KEY (tenant_id, product_id),
    CONSTRAINT sku_taken UNIQUE (tenant_id, sku)
) PARTITION BY HASH (tenant_id);

CREATE TABLE orders (
    tenant_id         text          NOT NULL,
    external_order_id text          NOT NULL CHECK (length(external_order_id) BETWEEN 1 AND 100),
    id                uuid          NOT NULL,
    customer_id       text,
    customer_name     text,
    customer_email    text,
    total_amount      numeric(12,2) NOT NULL CHECK (total_amount >= 0),
    currency          text          NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    order_status      text          NOT NULL CHECK (order_status IN
        ('pending', 'paid', 'processing', 'shipped', 'delivered', 'cancelled', 'refunded')),
    order_date        timestamptz   NOT NULL CHECK (order_date >= '1970-01-01Z' AND order_date < '2200-01-01Z'),
    raw_payload       jsonb CHECK (jsonb_typeof(raw_payload) = 'object'),
    updated_at        timestamptz CHECK (updated_at >= '1970-01-01Z' AND updated_at < '2200-01-01Z'),
    version_at        timestamptz   NOT NULL,
    version_offset    bigint        NOT NULL,
    version_row       int           NOT NULL,
    revision          int           NOT NULL DEFAULT 0,  -- times it was replaced; tells an update from an insert
    PRIMARY KEY (tenant_id, external_order_id)
) PARTITION BY HASH (tenant_id);

CREATE TABLE order_items (
    tenant_id         text          NOT NULL,
    external_order_id text          NOT NULL,
    item              int           NOT NULL,
    product_id        text          NOT NULL CHECK (length(product_id) BETWEEN 1 AND 100),
    quantity          int           NOT NULL CHECK (quantity > 0),
    unit_price        numeric(12,2) NOT NULL CHECK (unit_price >= 0),
    PRIMARY KEY (tenant_id, external_order_id, item)
) PARTITION BY HASH (tenant_id);

DO $$
DECLARE
    parent text;
BEGIN
    FOREACH parent IN ARRAY ARRAY['customers', 'products', 'orders', 'order_items'] LOOP
        FOR n IN 0..7 LOOP
            EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES WITH (MODULUS 8, REMAINDER %s)',
                           parent || '_' || n, parent, n);
        END LOOP;
    END LOOP;
    FOREACH parent IN ARRAY ARRAY['ledger', 'row_errors', 'customers', 'products', 'orders', 'order_items'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', parent);
        -- A pooled connection's setting is '' after commit: nobody's.
        EXECUTE format('CREATE POLICY tenant ON %I FOR SELECT TO tillstream_reader
                        USING (tenant_id = nullif(current_setting(''app.tenant_id'', true), ''''))', parent);
        EXECUTE format('CREATE POLICY writer ON %I TO tillstream_writer USING (true) WITH CHECK (true)', parent);
        EXECUTE format('GRANT SELECT ON %I TO tillstream_reader', parent);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO tillstream_writer', parent);
    END LOOP;
END $$;
GRANT SELECT, INSERT, UPDATE ON sink_offsets TO tillstream_writer;
DO $$
BEGIN
    -- For the staging tables, where a server's administrator has taken this right from PUBLIC.
    EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO tillstream_writer', current_database());
END $$;
