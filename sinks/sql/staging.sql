-- Where COPY puts rows before the upserts, a set of tables a connection. Money is in cents.
CREATE TEMP TABLE staged_customers (
    tenant_id text, customer_id text, id uuid, email text, name text, phone text, country text, attributes text,
    updated_at timestamptz, version_at timestamptz, version_offset bigint, version_row int
) ON COMMIT DELETE ROWS;
CREATE TEMP TABLE staged_products (
    tenant_id text, product_id text, id uuid, sku text, name text, price_cents bigint, currency text, category text,
    active boolean, attributes text, updated_at timestamptz, version_at timestamptz, version_offset bigint,
    version_row int
) ON COMMIT DELETE ROWS;
CREATE TEMP TABLE staged_orders (
    tenant_id text, external_order_id text, id uuid, customer_id text, customer_name text, customer_email text,
    total_cents bigint, currency text, order_status text, order_date timestamptz, raw_payload text,
    updated_at timestamptz, version_at timestamptz, version_offset bigint, version_row int
) ON COMMIT DELETE ROWS;
CREATE TEMP TABLE staged_order_items (
    tenant_id text, external_order_id text, item int, product_id text, quantity int, unit_price_cents bigint
) ON COMMIT DELETE ROWS;
CREATE TEMP TABLE applied_orders (
    tenant_id text, external_order_id text, order_date timestamptz, version_offset bigint, version_row int,
    replaced boolean
) ON COMMIT DELETE ROWS;
CREATE TEMP TABLE staged_stock_levels (
    tenant_id text, product_id text, quantity bigint, version bigint, updated_at timestamptz, source_offset bigint
) ON COMMIT DELETE ROWS;
CREATE TEMP TABLE staged_stock_movements (
    tenant_id text, product_id text, log_offset bigint, row_index int, line int, event_id text, movement_id text,
    kind text, moved bigint, expected_quantity bigint, occurred_at timestamptz, logged_at timestamptz, outcome text,
    code text, quantity bigint, version bigint
) ON COMMIT DELETE ROWS;
CREATE TEMP TABLE staged_price_changes (
    tenant_id text, product_id text, log_offset bigint, row_index int, line int, event_id text, change_id text,
    status text, alert boolean, findings text, before_cents bigint, new_cents bigint, after_cents bigint, currency text,
    new_currency text, version bigint, occurred_at timestamptz, logged_at timestamptz, source text, metadata text,
    held_offset bigint, decided_by text, decision_reason text
) ON COMMIT DELETE ROWS;
CREATE TEMP TABLE staged_price_limits (
    tenant_id text, product_id text, floor_cents bigint, ceiling_cents bigint, log_offset bigint, row_index int
) ON COMMIT DELETE ROWS;
