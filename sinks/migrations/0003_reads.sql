-- Indexes of the gateway's reads, each beside what it serves. Reads by id use the primary keys, products by sku the
-- constraint sku_taken; country, currency and active=true are filtered along the way, for they match much.

-- GET /orders, newest first, page by page or all of it, with from and to.
CREATE INDEX orders_newest ON orders (tenant_id, order_date DESC, external_order_id DESC);
-- GET /orders?customer_id=
CREATE INDEX orders_of_customer ON orders (tenant_id, customer_id, order_date DESC, external_order_id DESC)
    WHERE customer_id IS NOT NULL;
-- GET /orders?status=, of what is not delivered: most orders are, and orders_newest finds those as fast.
CREATE INDEX orders_of_status ON orders (tenant_id, order_status, order_date DESC, external_order_id DESC)
    WHERE order_status <> 'delivered';
-- GET /orders?product_id= and ?sku=
CREATE INDEX order_items_of_product ON order_items (tenant_id, product_id, external_order_id);
-- GET /products?category=
CREATE INDEX products_of_category ON products (tenant_id, category, product_id) WHERE category IS NOT NULL;
-- GET /products?active=false
CREATE INDEX products_inactive ON products (tenant_id, product_id) WHERE NOT active;
-- GET /customers?email=
CREATE INDEX customers_of_email ON customers (tenant_id, email, customer_id) WHERE email IS NOT NULL;
