"""No tenant sees another's rows: the proof at the start fails on every way around it, and a walk over all routes."""

import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import psycopg
import pytest
from pipeline import READER_PASSWORD, Pipeline, eventually
from records import fill
from relay import Relay
from test_end_to_end import order

from deploy import credentials
from gateway import isolation
from schemas.errors import Misconfigured, Unavailable


@pytest.fixture
def owner_url() -> Iterator[str]:
    """A migrated database with rows of two tenants."""
    with Pipeline.database() as url:
        with psycopg.connect(url) as db:
            for tenant in ("one", "two"):
                fill(db, tenant, customers=3, products=3, orders=3)
        yield url


@contextmanager
def role(owner_url: str, *statements: str) -> Iterator[tuple[str, str]]:
    """A login with every right of the reader, after `statements` about {role}: its name and URL."""
    name = f"t_{secrets.token_hex(6)}"
    url = credentials.reader_url(owner_url, READER_PASSWORD).replace(credentials.READER_LOGIN, name)
    with psycopg.connect(owner_url, autocommit=True) as db:
        db.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{READER_PASSWORD}' IN ROLE tillstream_reader".encode())
        try:
            for statement in statements:
                db.execute(statement.format(role=name).encode())
            yield name, url
        finally:
            db.execute(f"DROP OWNED BY {name}; DROP ROLE {name}".encode())


def test_the_readers_login_is_proven(owner_url: str) -> None:
    with psycopg.connect(owner_url) as db:  # a view that its reader's rights bind is no way around
        db.execute("CREATE VIEW paid WITH (security_invoker = on) AS SELECT * FROM orders WHERE order_status = 'paid'")
        db.execute("GRANT SELECT ON paid TO tillstream_reader")
        db.execute("CREATE TEMP TABLE staged (tenant_id text)")
        db.execute("GRANT SELECT ON staged TO tillstream_reader")
        db.commit()
        isolation.prove(credentials.reader_url(owner_url, READER_PASSWORD))


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (
            "CREATE TABLE wishes (tenant_id text, wish text)",
            r"public\.wishes has a tenant_id but no row-level security",
        ),
        ("ALTER TABLE orders DISABLE ROW LEVEL SECURITY", r"public\.orders has a tenant_id but no row-level security"),
        ("GRANT SELECT ON orders_3 TO tillstream_reader", r"partition public\.orders_3 can be read directly"),
        ("GRANT SELECT (email) ON customers_0 TO tillstream_reader", r"partition public\.customers_0 can be read"),
        ("GRANT INSERT ON orders TO tillstream_reader", r"public\.orders can be written"),
        ("GRANT UPDATE (name) ON customers TO PUBLIC", r"public\.customers can be written"),
        ("GRANT TRUNCATE ON ledger TO tillstream_reader", r"public\.ledger can be written"),
        ("GRANT CREATE ON SCHEMA public TO tillstream_reader", "may create things in schema public"),
        (
            "CREATE VIEW every AS SELECT * FROM orders; GRANT SELECT ON every TO tillstream_reader",
            r"public\.every can be read .* a view without security_invoker",
        ),
        (
            "CREATE MATERIALIZED VIEW every AS SELECT * FROM orders; GRANT SELECT ON every TO tillstream_reader",
            r"public\.every can be read .* a materialized view",
        ),
        (
            "CREATE TABLE copied AS SELECT tenant_id AS merchant FROM orders; GRANT SELECT ON copied TO PUBLIC",
            r"public\.copied can be read .* a table without tenant_id",
        ),
        (
            "CREATE FUNCTION ids() RETURNS SETOF uuid LANGUAGE sql SECURITY DEFINER AS 'SELECT id FROM customers'",
            r"function ids\(\) can be called and runs with its owner's rights",
        ),
        ("CREATE POLICY open ON orders USING (true)", r"policy open of public\.orders lets in true"),
        ("CREATE POLICY open ON uploads FOR SELECT TO tillstream_reader USING (true)", "policy open of public.uploads"),
        (
            "ALTER POLICY tenant ON customers USING (tenant_id >= current_setting('app.tenant_id', true))",
            r"policy tenant of public\.customers lets in \(tenant_id >= current_setting",
        ),
    ],
    ids=lambda text: text[:40],
)
def test_a_database_that_does_not_isolate_is_refused(owner_url: str, broken: str, says: str) -> None:
    with psycopg.connect(owner_url) as db:
        db.execute(broken.encode())
    with pytest.raises(Misconfigured, match=f"(?s)refuses to serve.*{says}.*what to do"):
        isolation.prove(credentials.reader_url(owner_url, READER_PASSWORD))


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ("ALTER ROLE {role} SUPERUSER", "role {role} is a superuser"),
        ("ALTER ROLE {role} BYPASSRLS", "role {role} has BYPASSRLS"),
        ("ALTER ROLE {role} CREATEROLE", "role {role} may make roles"),
        ("GRANT pg_read_all_data TO {role}", "partition .* can be read directly"),
        ("GRANT pg_read_server_files TO {role}", "pg_read_server_files, which {role} can become, reaches the files"),
        ("GRANT tillstream_writer TO {role}", "can be written"),
        ("ALTER ROLE {role} NOINHERIT; GRANT tillstream_writer TO {role}", "can be written"),
        ("CREATE TABLE mine (note text); ALTER TABLE mine OWNER TO {role}", r"role {role} owns public\.mine"),
    ],
    ids=lambda text: text[:40],
)
def test_a_login_that_can_do_more_than_read_is_refused(owner_url: str, broken: str, says: str) -> None:
    with role(owner_url, broken) as (name, url), pytest.raises(Misconfigured, match=says.format(role=name)):
        isolation.prove(url)


def test_a_role_that_the_login_can_become_counts(owner_url: str) -> None:
    with role(owner_url, "ALTER ROLE {role} BYPASSRLS") as (mighty, _):
        grant = "ALTER ROLE {role} NOINHERIT; GRANT " + mighty + " TO {role}"
        says = f"role {mighty}, which t_.* can become, has BYPASSRLS"
        with role(owner_url, grant) as (_, url), pytest.raises(Misconfigured, match=says):
            isolation.prove(url)


def test_the_owner_of_the_tables_is_refused(owner_url: str) -> None:
    with pytest.raises(Misconfigured, match="role postgres has BYPASSRLS and is a superuser"):
        isolation.prove(owner_url)


def test_a_leak_that_the_catalogue_does_not_show_is_seen(owner_url: str) -> None:
    database = owner_url.rpartition("/")[2]
    with (
        role(owner_url, f"ALTER ROLE {{role}} IN DATABASE {database} SET app.tenant_id = 'two'") as (_, url),
        pytest.raises(Misconfigured, match=r'table "public"\."customers" shows rows that belong to others'),
    ):
        isolation.prove(url)


def test_a_database_that_is_away_or_empty_proves_nothing(owner_url: str) -> None:
    with pytest.raises(Unavailable, match="does not answer"):
        isolation.prove("postgresql://nobody@127.0.0.1:1/nothing")
    with role(owner_url) as (_, url), psycopg.connect(owner_url) as db:
        db.execute("DROP OWNED BY tillstream_reader")
        db.commit()
        with pytest.raises(Unavailable, match="tillstream migrate"):
            isolation.prove(url)


def test_the_proof_reads_no_table_through(owner_url: str) -> None:
    with psycopg.connect(owner_url, autocommit=True) as db:
        db.execute(
            "INSERT INTO ledger (tenant_id, topic, partition, log_offset, event_id, type, outcome, rows, applied,"
            " accepted_at, logged_at) SELECT 'one', 't', 0, n, n, 't', 'applied', 1, 1, now(), now()"
            " FROM generate_series(1, 100000) n"
        )
        db.execute("ANALYZE ledger")
        before = db.execute("SELECT pg_stat_get_tuples_returned('ledger'::regclass)").fetchone()
        isolation.prove(credentials.reader_url(owner_url, READER_PASSWORD))
        db.execute("SELECT pg_stat_force_next_flush()")
        db.execute("SELECT pg_stat_clear_snapshot()")
        assert before == db.execute("SELECT pg_stat_get_tuples_returned('ledger'::regclass)").fetchone()


def test_a_gateway_with_a_mighty_login_ends_with_2(own_pipeline: Pipeline) -> None:
    settings = replace(own_pipeline.settings, reader_database_url=own_pipeline.settings.database_url)
    ended = subprocess.run(
        [sys.executable, "-m", "gateway"], env=settings.env(), capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 2
    assert "tillstream gateway: refuses to serve" in ended.stderr
    assert "role postgres has BYPASSRLS and is a superuser" in ended.stderr
    assert "what to do: TILLSTREAM_READER_DATABASE_URL takes a login of its own" in ended.stderr


def test_ingestion_serves_while_postgresql_is_away_and_reads_begin_when_it_is_back(own_pipeline: Pipeline) -> None:
    with Relay(own_pipeline.settings.reader_database_url) as relay:
        own_pipeline.settings = replace(own_pipeline.settings, reader_database_url=relay.url)
        own_pipeline.start("gateway", restarted=False)
        tenant, key = own_pipeline.tenant()
        read = f"/api/v1/tenants/{tenant}/customers"

        def status(**headers: str) -> int:
            return own_pipeline.http.get(read, headers={"X-API-Key": key, **headers}).status_code

        assert own_pipeline.post(tenant, key, "orders", order(1)).status_code == 202
        away = own_pipeline.http.get(read, headers={"X-API-Key": key})
        assert (away.status_code, away.json()["code"], away.json()["retriable"]) == (503, "reads_unavailable", True)
        assert away.elapsed.total_seconds() < 3
        assert own_pipeline.http.get(f"{read}/C-1", headers={"X-API-Key": key}).status_code == 503
        events = f"/api/v1/tenants/{tenant}/events/unknown"
        assert own_pipeline.http.get(events, headers={"X-API-Key": key}).status_code == 503
        for _ in range(2):  # it may go away again, under a gateway that has read
            assert status(Accept="text/csv") == 503
            relay.up()
            eventually(lambda: status() == 200, within=3)
            assert status(Accept="text/csv") == 200
            relay.down()
            eventually(lambda: status() == 503, within=3)
        assert own_pipeline.post(tenant, key, "orders", order(2)).status_code == 202


def test_a_gateway_ends_with_2_when_the_database_that_comes_back_does_not_isolate(own_pipeline: Pipeline) -> None:
    with Relay(own_pipeline.settings.reader_database_url) as relay:
        own_pipeline.settings = replace(own_pipeline.settings, reader_database_url=relay.url)
        own_pipeline.start("gateway", restarted=False)
        with psycopg.connect(own_pipeline.settings.database_url) as db:
            db.execute("GRANT SELECT ON orders_3 TO tillstream_reader")
        process = own_pipeline.children["gateway"].process
        assert process is not None
        assert process.poll() is None
        relay.up()
        assert process.wait(10) == 2
        assert "partition public.orders_3 can be read directly" in own_pipeline.log("gateway")
