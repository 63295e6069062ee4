"""`tillstream doctor` on what is whole, and on one fault after another."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from pipeline import Pipeline, eventually
from psycopg.conninfo import make_conninfo
from test_end_to_end import order

from deploy.credentials import make_reader
from schemas import topics
from schemas.errors import Misconfigured
from sinks.migrate import migrate


def examined(pipeline: Pipeline, **changed: Any) -> tuple[int, dict[str, tuple[str, str, str]]]:
    """Exit code, and by what was looked at: level, finding, remedy."""
    before, pipeline.settings = pipeline.settings, replace(pipeline.settings, **changed)
    try:
        done = pipeline.cli("doctor", "--json")
    finally:
        pipeline.settings = before
    assert done.stderr == ""
    return done.returncode, {f["what"]: (f["level"], f["found"], f["remedy"]) for f in json.loads(done.stdout)}


def test_what_is_whole_is_said_to_be(pipeline: Pipeline) -> None:
    tenant, key = pipeline.tenant()
    assert pipeline.post(tenant, key, "orders", order(1)).status_code == 202
    pipeline.drained()
    code, found = examined(pipeline)
    assert code == 0, found
    assert {what for what, (level, _, _) in found.items() if level == "ok"} >= {
        "versions", "Kafka", "topics", "copies", "PostgreSQL", "clocks", "migrations", "roles", "isolation", "gateway",
        "streams", "streams lag", "sinks", "sinks lag",
    }  # fmt: skip
    shown = pipeline.cli("doctor", columns=80).stdout
    assert "nothing is wrong" in shown
    assert pipeline.settings.database_url not in shown


@pytest.mark.parametrize(
    ("changed", "what", "says"),
    [
        ({"kafka_bootstrap_servers": "127.0.0.1:1"}, "Kafka", "does not answer"),
        ({"database_url": "postgresql://127.0.0.1:1/x"}, "PostgreSQL", "refused"),
        ({"prefix": "nowhere."}, "topics", "nowhere.tenants is missing"),
        ({"gateway_port": 1}, "gateway", "ConnectError"),
        ({"schema_registry_url": "http://127.0.0.1:1"}, "registry", "does not answer"),
    ],
)
def test_what_is_away_or_missing_is_named_with_a_remedy(
    pipeline: Pipeline, changed: dict[str, Any], what: str, says: str
) -> None:
    code, found = examined(pipeline, **changed)
    level, said, remedy = found[what]
    assert (code, level) == ((0, "warn") if what == "registry" else (1, "fail"))
    assert says in said
    assert len(remedy) > 10


def test_a_gateways_login_that_sees_all_tenants_is_a_fault(pipeline: Pipeline) -> None:
    code, found = examined(pipeline, reader_database_url=pipeline.settings.database_url)
    assert (code, found["isolation"][0]) == (1, "fail")
    assert "superuser" in found["isolation"][1]


def test_a_login_that_may_not_look_and_a_grant_that_is_gone(own_pipeline: Pipeline) -> None:
    code, found = examined(own_pipeline, database_url=own_pipeline.settings.reader_database_url)
    assert (code, found["roles"][0]) == (1, "fail")
    assert "permission denied" in found["roles"][1]
    with psycopg.connect(own_pipeline.settings.database_url, autocommit=True) as db:
        db.execute("REVOKE INSERT ON orders FROM tillstream_writer")
    code, found = examined(own_pipeline)
    assert (code, found["grants"][0]) == (1, "fail")
    assert "INSERT ON orders" in found["grants"][1]


def test_an_owner_who_is_no_superuser_can_do_what_sinks_do() -> None:
    server, name = os.environ["DATABASE_URL"], f"t_owner_{os.getpid()}"
    with psycopg.connect(server, autocommit=True) as db:
        db.execute(f"CREATE ROLE {name} LOGIN CREATEROLE PASSWORD 'secret'".encode())
        for role in ("tillstream_writer", "tillstream_reader"):  # what PostgreSQL gives to who makes a role
            db.execute(f"GRANT {role} TO {name} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE".encode())
        db.execute(f"CREATE DATABASE {name} OWNER {name}".encode())
        try:
            url = make_conninfo(server, dbname=name, user=name, password="secret")
            for _ in range(2):
                migrate(url)
                with psycopg.connect(url) as owner:
                    owner.execute("SET ROLE tillstream_writer")
                    owner.execute("SELECT FROM orders")
                    owner.execute("SET ROLE tillstream_reader")
        finally:
            db.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
            db.execute(f"REVOKE tillstream_writer, tillstream_reader FROM {name} CASCADE".encode())
            db.execute(f"DROP ROLE {name}".encode())


def test_an_owner_who_may_make_no_login_is_told_who_can() -> None:
    server, name = os.environ["DATABASE_URL"], f"t_owner_{os.getpid()}"
    with psycopg.connect(server, autocommit=True) as db:
        db.execute(f"CREATE ROLE {name} LOGIN CREATEROLE PASSWORD 'secret'".encode())
        try:  # the role tillstream_reader is another's
            url = make_conninfo(server, user=name, password="secret")
            with pytest.raises(Misconfigured, match=f"{name} may not .* IN ROLE tillstream_reader"):
                make_reader(url, f"{name}_reader", "secret")
            assert db.execute("SELECT FROM pg_roles WHERE rolname = %s", [f"{name}_reader"]).fetchone() is None
        finally:
            db.execute(f"DROP ROLE {name}".encode())


def test_a_database_without_migrations_or_with_newer_ones(pipeline: Pipeline) -> None:
    server, name = os.environ["DATABASE_URL"], f"t_bare_{os.getpid()}"
    with psycopg.connect(server, autocommit=True) as db:
        db.execute(f'CREATE DATABASE "{name}"'.encode())
        try:
            bare = make_conninfo(server, dbname=name)
            code, found = examined(pipeline, database_url=bare)
            env = os.environ | pipeline.settings.env() | {"DATABASE_URL": bare}
            for command in (("audit",), ("sinks",), ("dlq", "list")):
                run = [sys.executable, "-c", "from deploy.cli import main; main()", *command]
                done = subprocess.run(run, env=env, capture_output=True, text=True, timeout=60)
                assert done.returncode == 2
                assert "the database lacks migration 0001 (ingestion) and " in done.stderr
                assert "Run: tillstream migrate" in done.stderr
                assert "Traceback" not in done.stderr
        finally:
            db.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())
    assert (code, found["migrations"][0], found["migrations"][2]) == (1, "fail", "tillstream migrate")
    with pipeline.database() as url, psycopg.connect(url, autocommit=True) as db:
        db.execute("INSERT INTO migrations (name, sha256) VALUES ('9999_later.sql', '')")
        code, found = examined(pipeline, database_url=url)
    assert (code, "9999_later.sql came from a newer version" in found["migrations"][1]) == (1, True)


def test_workers_that_do_not_run_and_what_waits_for_them(own_pipeline: Pipeline) -> None:
    own_pipeline.start("gateway")
    tenant, key = own_pipeline.tenant()
    assert own_pipeline.post(tenant, key, "orders", order(1)).status_code == 202
    code, found = examined(own_pipeline)
    assert (code, found["streams"][0], found["sinks"][0]) == (1, "fail", "fail")
    assert found["streams lag"][1].startswith("1 messages to read; the oldest, of ")
    own_pipeline.start("streams", "sinks")
    own_pipeline.drained()
    code, found = eventually(lambda: (seen := examined(own_pipeline))[0] == 0 and seen)
    assert found["streams lag"][1] == "nothing to read"


def other_setting(pipeline: Pipeline, name: str) -> None:
    """A setting that differs is named, and so is the command that sets it, which does."""
    entry = ConfigEntry("retention.ms", "600000", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=[entry])
    admin = AdminClient({**pipeline.settings.kafka, "log_level": 0})
    for altered in admin.incremental_alter_configs([resource]).values():
        altered.result()
    said = eventually(lambda: (seen := examined(pipeline)[1]["topics"])[0] == "fail" and seen[1])
    assert f"{name} has retention.ms=600000, not -1" in said
    assert said.endswith("To set what differs: tillstream topics ensure --alter")
    assert pipeline.cli("topics", "ensure").returncode == 2
    altered_to = pipeline.cli("topics", "ensure", "--alter")
    assert (altered_to.returncode, altered_to.stdout) == (0, f"{name}: retention.ms=-1, was 600000\n")


def test_a_topic_that_was_made_again_is_told_from_the_first(own_pipeline: Pipeline) -> None:
    own_pipeline.start("sinks", "streams", "gateway")
    own_pipeline.drained()
    name = own_pipeline.settings.named(topics.INGESTION_UNIQUE)
    other_setting(own_pipeline, name)
    for role in ("gateway", "streams", "sinks"):
        own_pipeline.children[role].stop()
    admin = AdminClient({**own_pipeline.settings.kafka, "log_level": 0})
    admin.delete_topics([name])[name].result()
    eventually(lambda: name not in admin.list_topics(timeout=5).topics)
    assert own_pipeline.cli("topics", "ensure").returncode == 0
    code, found = examined(own_pipeline)
    assert (code, found["offsets"][0]) == (1, "fail")
    assert "deleted and made again" in found["offsets"][1]
