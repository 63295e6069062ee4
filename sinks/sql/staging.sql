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
    tenant_id text, external_order_id text, version_offset bigint, version_row int, replaced boolean
) ON COMMIT DELETE ROWS;
