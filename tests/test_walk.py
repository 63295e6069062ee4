"""A walk over every route and every table as one tenant, in search of another's data.

Who adds a route or a table has to say here how it is called, or what is in it: the test fails until then.
"""

import re
import secrets
import time
import uuid
from typing import Any

import psycopg
import pytest
from pipeline import Pipeline
from psycopg.sql import SQL, Identifier
from starlette.routing import Route
from test_end_to_end import order

from gateway import admin, console, schema_pages
from gateway.app import BASE, create_app
from gateway.sql import statement
from gateway.upload_token import Token

MEDIA_TYPES = ("application/json", "application/x-ndjson", "text/csv", "*/*")
CALLS: dict[tuple[str, str], bytes | None] = {
    ("POST", BASE + "/ingest/{entity}"): order(1),
    ("GET", BASE + "/events/{event_id:path}"): None,
    ("GET", BASE + "/products"): None,
    ("GET", BASE + "/products/{record_id:path}"): None,
    ("GET", BASE + "/customers"): None,
    ("GET", BASE + "/customers/{record_id:path}"): None,
    ("GET", BASE + "/orders"): None,
    ("GET", BASE + "/orders/{record_id:path}"): None,
    ("POST", BASE + "/stock-events"): b'{"product_id": "P", "kind": "received", "quantity": 1}',
    ("GET", BASE + "/stock"): None,
    ("GET", BASE + "/stock/{record_id:path}"): None,
    ("GET", BASE + "/stock/{record_id:path}/history"): None,
    ("POST", BASE + "/price-events"): b'{"product_id": "P", "new_price": 1}',
    ("POST", BASE + "/products/{product_id:path}/price-event"): b'{"new_price": 1}',
    ("PUT", BASE + "/products/{product_id:path}/price-limits"): b'{"floor": 1}',
    ("POST", BASE + "/price-decisions"): b'{"decision": "reject", "held": [{"product_id": "P", "held_offset": 1}]}',
    ("GET", BASE + "/prices/{record_id:path}"): None,
    ("GET", BASE + "/prices/{record_id:path}/history"): None,
    ("GET", BASE + "/price-alerts"): None,
    ("GET", BASE + "/price-alerts/stream"): None,
    ("GET", BASE + "/metrics/daily"): None,
    ("GET", BASE + "/metrics/top-products"): None,
    ("GET", BASE + "/metrics/stock-outs"): None,
    ("GET", BASE + "/metrics/price-anomalies"): None,
    ("POST", BASE + "/uploads"): b'{"entity": "orders"}',
    ("GET", BASE + "/uploads"): None,
    ("GET", BASE + "/activity"): None,
    ("GET", BASE + "/uploads/{token}"): None,
    ("DELETE", BASE + "/uploads/{token}"): None,
    ("PUT", BASE + "/uploads/{token}/chunks/{n}"): order(1),
    ("POST", BASE + "/uploads/{token}/complete"): b'{"chunks": 1}',
    ("GET", BASE + "/uploads/{token}/errors"): None,
    ("POST", BASE + "/uploads/{token}/corrections"): b'{"chunk": 1, "line": 1, "row": {}}',
    ("POST", BASE + "/exports"): b'{"entity": "orders", "format": "csv"}',
    ("GET", BASE + "/exports"): None,
    ("GET", BASE + "/exports/{export_id}"): None,
    ("DELETE", BASE + "/exports/{export_id}"): None,
    ("GET", BASE + "/exports/{export_id}/file"): None,
    ("GET", admin.BASE): None,
    ("POST", admin.BASE): b'{"tenant_id": "new"}',
    ("GET", admin.BASE + "/{tenant_id:str}"): None,
    ("PATCH", admin.BASE + "/{tenant_id:str}"): b'{"name": "taken over"}',
    ("POST", admin.BASE + "/{tenant_id:str}/keys"): b"{}",
    ("DELETE", admin.BASE + "/{tenant_id:str}/keys/{key_id:str}"): None,
    ("GET", "/healthz"): None,
    ("GET", "/readyz"): None,
    ("GET", "/metrics"): None,
    ("GET", schema_pages.DOCUMENT): None,
    ("GET", schema_pages.SWAGGER_UI.rstrip("/")): None,
    ("GET", schema_pages.SWAGGER_UI + "{file:str}"): None,
    ("GET", console.PAGE.rstrip("/")): None,
    ("GET", console.PAGE + "{asset:str}"): None,
}
"""The body that each route takes."""

HTTP = {"GET", "POST", "PUT", "PATCH", "DELETE"}

_VERSION = "now(), 1, 1"
ROWS = {
    "customers": f"%(mark)s, gen_random_uuid(), %(mark)s, %(mark)s, %(mark)s, %(mark)s, NULL, NULL, {_VERSION}",
    "products": f"%(mark)s, gen_random_uuid(), %(mark)s, %(mark)s, 1, 'EUR', %(mark)s, true, NULL, NULL, {_VERSION}",
    "orders": "%(mark)s, gen_random_uuid(), %(mark)s, %(mark)s, %(mark)s, 1, 'EUR', 'paid', now(),"
    f" jsonb_build_object('note', %(mark)s::text), NULL, {_VERSION}",
    "order_items": "%(mark)s, 0, %(mark)s, 1, 1",
    "ledger": "%(mark)s, 0, 0, %(mark)s, 'tillstream.orders.v1', 'rejected', 1, 0, 0, 0, 0, 1, %(mark)s, %(mark)s,"
    " now(), now()",
    "row_errors": "%(mark)s, 0, 0, 0, 1, 'invalid_value', %(mark)s, %(mark)s",
    "stock_levels": "%(mark)s, 1, 1, now(), 0",
    "stock_movements": "%(mark)s, 0, 0, 1, %(mark)s, %(mark)s, 'set', 1, NULL, NULL, now(), 'applied', NULL, 1, 1",
    "prices": "%(mark)s, 1, 'EUR', now(), 1, 0",
    "price_changes": "%(mark)s, 0, 0, 1, %(mark)s, %(mark)s, 'anomaly', true, '[]', 1, 1, 1, 'EUR', 'EUR', 1, now(),"
    " now(), %(mark)s, NULL, NULL, NULL, NULL",
    "price_limits": "%(mark)s, 1, 2, 0",
    "tenant_daily_metrics": "now(), %(mark)s, 1, 0, 0, 1, 1",
    "dead_letters": "%(mark)s, 0, 0, %(mark)s, %(mark)s, %(mark)s, %(mark)s, %(mark)s, %(mark)s, 1,"
    " now(), now(), now(), jsonb_build_object('ce_id', %(mark)s::text), convert_to(%(mark)s, 'UTF8'),"
    " convert_to(%(mark)s, 'UTF8'), 1",
    "uploads": "gen_random_uuid(), 'orders', %(mark)s, now(), now()",
    "exports": "gen_random_uuid(), 'orders', 'csv', false, jsonb_build_array(jsonb_build_array('sku', %(mark)s::text)),"
    " 'queued', 0, NULL, 0, NULL, NULL, NULL, now()",
    "tenants": "%(mark)s, 'EUR', '{}', '{}', '[]', 1, now()",
}
"""What follows tenant_id in a row of each table of tenants."""
COLUMNS = {
    "dead_letters": "(tenant_id, topic, partition, log_offset, claimed, step, reason, detail, event_id, type, rows,"
    " accepted_at, logged_at, dead_at, headers, key, payload, payload_bytes)"
}
"""Of tables where tenant_id is not the first."""


def made(db: psycopg.Connection[Any], tenant: str) -> str:
    """Put a row of this tenant into every table; return the text that all of them hold."""
    mark = f"zq{secrets.token_hex(8)}"
    for table, values in ROWS.items():
        insert = f"INSERT INTO {table} {COLUMNS.get(table, '')} VALUES (%(tenant)s, {values})"
        db.execute(insert.encode(), {"tenant": tenant, "mark": mark})
    return mark


def routes(pipeline: Pipeline) -> set[tuple[str, str]]:
    """Method and path of every route, without the slash at the end."""
    found = set()
    for route in create_app(pipeline.settings).routes:
        assert isinstance(route, Route), f"teach this test about {route}"
        methods = route.methods or {name.upper() for name in vars(route.endpoint) if name.upper() in HTTP}
        found |= {(method, route.path.rstrip("/")) for method in methods - {"HEAD"}}
    return found


def test_the_walk_knows_every_route(own_pipeline: Pipeline) -> None:
    assert routes(own_pipeline) == set(CALLS)


def test_no_answer_to_one_tenant_holds_anything_of_another(own_pipeline: Pipeline) -> None:
    # Nobody judges prices here.
    own_pipeline.start("gateway", patch="from gateway import price_outcomes; price_outcomes.PATIENCE_S = 0.2")
    (one, _), (two, key) = own_pipeline.tenant(), own_pipeline.tenant()
    with psycopg.connect(own_pipeline.settings.database_url) as db:
        secret, own = made(db, one), made(db, two)

    settings = own_pipeline.settings
    token = Token(uuid.UUID(int=1), "orders", 0, time.time_ns() // 1000 + 10**9)
    tokens = {secret: token.sign(settings.secret, one), own: token.sign(settings.secret, two)}

    def call(method: str, path: str, tenant: str, mark: str, accept: str = "*/*", key: str | None = key) -> Any:
        known = {"tenant_id": tenant, "entity": "orders", "record_id": mark, "product_id": mark, "event_id": mark}
        known |= {
            "token": tokens[mark],
            "n": "1",
            "key_id": "0",
            "export_id": str(uuid.UUID(int=1)),
            "file": "swagger-ui.css",
            "asset": "console.js",
        }
        path = re.sub(r"{(\w+)(:\w+)?}", lambda name: known[name[1]], path)
        headers = {"Accept": accept} | ({"X-API-Key": key} if key else {})
        with own_pipeline.http.stream(method, path, headers=headers, content=CALLS[method, template]) as answer:
            if answer.is_success and template.endswith("/stream"):  # which has no end
                answer._content = next(answer.iter_raw())
            answer.read()
            return answer

    shown = 0
    for method, template in sorted(routes(own_pipeline)):
        if template.startswith(BASE):
            assert call(method, template, one, secret).status_code == 403, template
            assert call(method, template, two, own, key=None).status_code == 401, template
        if template.startswith(admin.BASE):
            assert call(method, template, one, secret).status_code == 401, template
            continue
        for media_type in MEDIA_TYPES:
            for mark in (secret, own):
                answer = call(method, template, two, mark, media_type)
                assert answer.status_code in (200, 201, 202, 307, 308, 404, 406), (template, answer.text)
                assert secret not in answer.text, template
                assert one not in answer.text, template
                assert secret not in str(answer.headers), template
                shown += own in answer.text
            if template.endswith("_id:path}") and answer.status_code == 200:
                assert call(method, template, two, secret, media_type).status_code == 404, template
    assert shown >= len(MEDIA_TYPES) * 3 * 2  # else it looked where there is nothing


@pytest.mark.parametrize("setting", ["two", "", None])
def test_no_table_shows_one_tenant_the_rows_of_another(own_pipeline: Pipeline, setting: str | None) -> None:
    with psycopg.connect(own_pipeline.settings.database_url) as db:
        made(db, "one")
        made(db, "two")
    with psycopg.connect(own_pipeline.settings.reader_database_url) as db:
        tables = db.execute(statement("tenant_tables")).fetchall()
        assert {name for _, name in tables} == set(ROWS), "teach this test what is in a new table"
        if setting is not None:
            db.execute("SELECT set_config('app.tenant_id', %s, true)", [setting])
        seen = {name: db.execute(SQL("SELECT tenant_id FROM {}").format(Identifier(name))).fetchall() for name in ROWS}
    assert seen == {name: [("two",)] if setting == "two" else [] for name in ROWS}
