"""Faults of the environment dead-letter nothing, one bad row costs one row, and a bad deploy drains no topic."""

import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from pipeline import Pipeline, eventually
from relay import Relay
from test_dead_letters import ORDERS, ROW, Direct
from test_end_to_end import order
from test_recovery import log_of

from deploy.database import Database
from schemas import codec, topics


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[Pipeline]:
    with Pipeline(tmp_path, dead_letter_limit=0.01) as own:
        yield own


def tenants(pipeline: Pipeline, count: int) -> list[Direct]:
    return [Direct(pipeline) for _ in range(count)]


def stopped(pipeline: Pipeline, role: str) -> str:
    """What a role said when it stopped for good."""
    process = pipeline.children[role].process
    assert process is not None
    assert eventually(process.poll, within=60) == 2
    return pipeline.log(role)


def test_streams_stop_before_too_many_messages_of_several_tenants_are_dead_letters(strict: Pipeline) -> None:
    strict.start("streams", restarted=False)
    for one in tenants(strict, 40):
        one.send(b"no Avro")
    said = stopped(strict, "streams")
    assert "would be dead-lettered" in said
    assert "bad_framing 1. Nothing at hand is committed" in said
    assert len(log_of(strict, topics.DEAD_LETTERS)) <= 11
    strict.settings = strict.settings_with(dead_letter_limit=1.0)  # an operator has looked
    strict.children.pop("streams")
    strict.start("streams", "sinks", restarted=False)
    strict.drained()
    assert strict.sql("SELECT count(*) FROM dead_letters") == [(40,)]


def test_one_tenant_may_send_nothing_but_bad_messages_and_the_others_go_on(strict: Pipeline) -> None:
    strict.start("streams", "sinks", restarted=False)
    bad, good = tenants(strict, 2)
    for n in range(100):
        bad.send(bad.value("A-1")[:-3] if n % 2 else b"no Avro")
    good.send(good.value("A-1"))
    report = strict.drained()
    assert report.tenants[good.tenant].outcomes["applied"] == 1
    assert strict.sql("SELECT reason, count(*) FROM dead_letters GROUP BY 1 ORDER BY 1") == [
        ("bad_framing", 50), ("truncated", 50),
    ]  # fmt: skip


def test_a_sink_stops_before_too_many_messages_of_several_tenants_are_dead_letters(strict: Pipeline) -> None:
    strict.start("streams", "sinks", restarted=False)
    senders = tenants(strict, 40)
    for one in senders:
        one.send(one.value("A-1")[:-3])
    assert "truncated" in stopped(strict, "sinks")
    assert len(log_of(strict, topics.DEAD_LETTERS)) <= 11


def test_a_sink_stops_before_a_wrong_constraint_refuses_the_rows_of_everybody(strict: Pipeline) -> None:
    with psycopg.connect(strict.settings.database_url, autocommit=True) as db:
        db.execute("ALTER TABLE orders ADD CONSTRAINT wrong CHECK (length(external_order_id) > 50)")
        strict.start("streams", "sinks", restarted=False)
        senders = tenants(strict, 40)
        for one in senders:
            one.send(one.value("A-1", "A-2"))
        assert "invalid_value" in stopped(strict, "sinks")
        assert db.execute("SELECT count(*) < 40 FROM ledger").fetchone() == (True,)
        db.execute("ALTER TABLE orders DROP CONSTRAINT wrong")
    strict.children.pop("sinks")
    strict.start("sinks", restarted=False)
    strict.drained()
    assert strict.sql("SELECT sum(applied) >= 58, sum(rows) FROM ledger") == [(True, 80)]


def test_one_poison_row_in_10_000_quarantines_one_and_applies_9_999(strict: Pipeline) -> None:
    strict.start("streams", "sinks", restarted=False)
    [one] = tenants(strict, 1)
    for first in range(0, 10_000, 1_000):
        rows = [ROW | {"line": n, "external_order_id": f"A-{first + n}"} for n in range(1, 1_001)]
        if first == 4_000:
            rows[736] |= {"raw_payload": '{"a": 1e200000}'}
        one.send(codec.encode(ORDERS, {"tenant_id": one.tenant, "rows": rows}))
    outcomes = strict.drained().tenants[one.tenant].outcomes
    assert (outcomes["applied"], outcomes["rejected"]) == (9_999, 1)
    assert strict.sql("SELECT kind, natural_id, row_index, line, tenant_id FROM quarantine") == [
        ("row", "A-4737", 736, 737, one.tenant)
    ]
    assert log_of(strict, topics.DEAD_LETTERS) == []


def sent(pipeline: Pipeline, tenant: str, key: str, first: int) -> None:
    for n in range(first, first + 1_000, 100):
        body = b"".join(order(one) for one in range(n, n + 100))
        assert pipeline.post(tenant, key, "orders", body).status_code == 202


def assert_all_applied(pipeline: Pipeline, tenant: str, rows: int) -> None:
    outcomes = pipeline.drained(within=120).tenants[tenant].outcomes
    assert (outcomes["applied"], outcomes["rejected"]) == (rows, 0)
    assert pipeline.sql("SELECT count(*) FROM orders WHERE tenant_id = %s", tenant) == [(rows,)]
    assert pipeline.sql("SELECT count(*) FROM quarantine") == [(0,)]
    assert log_of(pipeline, topics.DEAD_LETTERS) == []
    assert pipeline.children["sinks"].restarts == 0


def waits(pipeline: Pipeline, about: str) -> None:
    eventually(lambda: pipeline.log("sinks").count(about) > 1, within=60)


def test_postgresql_away_for_a_quarter_of_a_minute_dead_letters_nothing(strict: Pipeline) -> None:
    with Relay(strict.settings.database_url) as relay:
        direct = strict.settings
        relay.up()
        strict.settings = strict.settings_with(database_url=relay.url)
        strict.start("streams", "sinks", "gateway")
        strict.settings = direct
        tenant, key = strict.tenant()
        sent(strict, tenant, key, 0)
        relay.down()
        gone = time.monotonic()
        sent(strict, tenant, key, 1_000)
        waits(strict, "waiting")
        eventually(lambda: time.monotonic() - gone > 15)
        relay.up()
        assert_all_applied(strict, tenant, 2_000)


def test_a_lost_privilege_dead_letters_nothing(strict: Pipeline) -> None:
    strict.start("streams", "sinks", "gateway")
    tenant, key = strict.tenant()
    with psycopg.connect(strict.settings.database_url, autocommit=True) as db:
        for privilege in ("INSERT ON orders", "UPDATE ON sink_offsets", "INSERT ON ledger"):
            db.execute(f"REVOKE {privilege} FROM tillstream_writer".encode())
        sent(strict, tenant, key, 0)
        waits(strict, "permission denied")
        for privilege in ("INSERT ON orders", "UPDATE ON sink_offsets", "INSERT ON ledger"):
            db.execute(f"GRANT {privilege} TO tillstream_writer".encode())
    assert_all_applied(strict, tenant, 1_000)


@contextmanager
def small_disk() -> Iterator[Path]:
    """A file system of 12 MB of its own. Where none may be mounted, which takes root, the test is skipped."""
    folder = Path(tempfile.mkdtemp(prefix="tillstream-small-"))
    folder.chmod(0o711)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m,mode=0711", "tmpfs", folder], capture_output=True)
    if done.returncode:
        folder.rmdir()
        pytest.skip(f"no file system may be mounted here: {done.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
        folder.rmdir()


def fill(ballast: Path) -> None:
    """Until nothing fits any more."""
    with pytest.raises(OSError, match="No space left"):
        ballast.write_bytes(bytes(20_000_000))


def move_orders(db: psycopg.Connection, tablespace: str) -> None:
    for n in range(8):
        db.execute(f"ALTER TABLE orders_{n} SET TABLESPACE {tablespace}".encode())


def test_a_full_disk_dead_letters_nothing(strict: Pipeline, tmp_path: Path) -> None:
    name = f"small_{secrets.token_hex(4)}"
    with small_disk() as disk, psycopg.connect(strict.settings.database_url, autocommit=True) as db:
        place, ballast = disk / "space", disk / "ballast"
        place.mkdir()
        if owner := Database(tmp_path).popen_user:
            shutil.chown(place, owner)
        db.execute(f"CREATE TABLESPACE {name} LOCATION '{place}'".encode())
        move_orders(db, name)
        fill(ballast)
        strict.start("streams", "sinks", "gateway")
        tenant, key = strict.tenant()
        sent(strict, tenant, key, 0)
        waits(strict, "No space left on device")
        ballast.unlink()
        assert_all_applied(strict, tenant, 1_000)
        strict.supervisor.stop()
        move_orders(db, "pg_default")
        db.execute(f"DROP TABLESPACE {name}".encode())
