"""Replay of one tenant: what differs is found exactly, and put right while everybody goes on."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import psycopg
import pytest
from merchant import Merchant
from pipeline import Pipeline, eventually

from schemas import topics
from schemas.errors import Misconfigured, Unavailable
from sinks.replay import replaying, shadow
from sinks.replay.plan import Plan, Progress
from sinks.replay.tables import KEPT, REBUILT, live_schema, tables

SLOW = """
import time, sinks.writer as writer
write = writer.write
def slowly(*arguments):
    write(*arguments)
    time.sleep(120)
writer.write = slowly
from deploy.cli import main
main()
"""
DAMAGE = {
    "DELETE FROM orders WHERE tenant_id = %s AND external_order_id IN ('A-1', 'A-2')": ("orders", "missing", 2),
    "UPDATE orders SET total_amount = 999 WHERE tenant_id = %s AND external_order_id = 'A-5'":
        ("orders", "different", 1),
    "DELETE FROM order_items WHERE tenant_id = %s AND external_order_id = 'A-6'": ("order_items", "missing", 2),
    "INSERT INTO order_items SELECT tenant_id, 'A-7', 9, 'x', 1, 1 FROM tenants WHERE tenant_id = %s":
        ("order_items", "extra", 1),
    "UPDATE customers SET attributes = '{\"vip\": false}' WHERE tenant_id = %s AND customer_id = 'C-1'":
        ("customers", "different", 1),
    "UPDATE customers SET customer_id = 'X-1' WHERE tenant_id = %s AND customer_id = 'C-2'": ("customers", "extra", 1),
    "DELETE FROM ledger WHERE tenant_id = %s AND type = 'tillstream.customers.v1' AND log_offset ="
    " (SELECT min(log_offset) FROM ledger AS l WHERE l.tenant_id = ledger.tenant_id AND type = ledger.type)":
        ("ledger", "missing", 1),
    "UPDATE row_errors SET code = 'x' WHERE tenant_id = %s AND code = 'currency_not_allowed'":
        ("row_errors", "different", 1),
    "UPDATE stock_levels SET quantity = 1000000 WHERE tenant_id = %s AND product_id = 'P-9'":
        ("stock_levels", "different", 1),
    "DELETE FROM stock_movements WHERE tenant_id = %s AND product_id = 'P-8'": ("stock_movements", "missing", 1),
    "UPDATE prices SET price = 1 WHERE tenant_id = %s AND product_id = 'P-9'": ("prices", "different", 1),
    "UPDATE price_changes SET metadata = '[1]' WHERE tenant_id = %s AND product_id = 'P-9'":
        ("price_changes", "different", 1),
    "DELETE FROM price_limits WHERE tenant_id = %s": ("price_limits", "missing", 1),
    "DELETE FROM uploads WHERE tenant_id = %s": ("uploads", "missing", 1),
    "UPDATE ingestion_policies SET order_totals = 'exact' WHERE tenant_id = %s": ("ingestion_policies", "different", 1),
    "UPDATE tenants SET name = 'x' WHERE tenant_id = %s": ("tenants", "different", 1),
}  # fmt: skip
"""What a clumsy hand does, and how it is to be found; none of it to rows that `Merchant.more` changes."""


@pytest.fixture(scope="module")
def mall(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A pipeline of this file's own: it is damaged."""
    with Pipeline(tmp_path_factory.mktemp("mall")) as pipeline:
        pipeline.start("streams", "sinks", "gateway")
        yield pipeline


def replay(pipeline: Pipeline, tenant: str, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Exit code and JSON of the command."""
    done = pipeline.cli("replay", "--tenant", tenant, "--json", *arguments)
    assert done.returncode in (0, 1), done.stderr
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def differing(said: dict[str, Any]) -> dict[tuple[str, str], int]:
    """Rows by table and kind, of those that differ."""
    return {
        (name, kind): found[kind]
        for name, found in said["tables"].items()
        for kind in ("missing", "extra", "different")
        if found[kind]
    }


@contextmanager
def traffic(*merchants: Merchant) -> Iterator[None]:
    """Merchants that go on sending until the block ends."""
    done, faults = threading.Event(), []

    def send(merchant: Merchant) -> None:
        try:
            while not done.is_set():
                merchant.more()
        except BaseException as exc:
            faults.append(exc)
            raise

    threads = [threading.Thread(target=send, args=(merchant,)) for merchant in merchants]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not faults


def rows_of(pipeline: Pipeline, tenant: str) -> list[tuple[Any, ...]]:
    """Every row of a tenant in every table, where PostgreSQL keeps it and which transaction wrote it included."""
    return [
        (name, *row)
        for name in (*REBUILT, "tenant_daily_metrics")
        for row in pipeline.sql(
            f"SELECT tableoid, ctid::text, xmin::text, t::text FROM {name} AS t WHERE tenant_id = %s ORDER BY 1, 2",
            tenant,
        )
    ]


def test_every_table_with_a_tenant_is_decided(db: psycopg.Connection[Any]) -> None:
    found = {table.name for table in tables(db, live_schema(db))}
    with_tenant = db.execute(
        "SELECT DISTINCT c.relname FROM pg_class c JOIN pg_attribute ON attrelid = c.oid"
        " WHERE attname = 'tenant_id' AND relkind IN ('r', 'p') AND NOT relispartition"
    ).fetchall()
    assert {row[0] for row in with_tenant} == found | set(KEPT)
    assert found == set(REBUILT)


def test_a_table_that_nobody_decided_about_is_refused(db: psycopg.Connection[Any]) -> None:
    db.execute("CREATE TABLE wishes (tenant_id text PRIMARY KEY, wish text)")
    with pytest.raises(Misconfigured, match=r"wishes has a tenant_id, .*sinks/replay/tables\.py"):
        tables(db, live_schema(db))


def test_damage_is_found_exactly_and_healed_while_everybody_goes_on(mall: Pipeline) -> None:
    hurt, quiet, busy = (Merchant(mall, seed) for seed in range(3))
    for merchant in (hurt, quiet, busy):
        merchant.everything()
    mall.drained()
    assert {name for name in REBUILT if not mall.sql(f"SELECT FROM {name} WHERE tenant_id = %s", hurt.tenant)} == set()
    assert replay(mall, hurt.tenant)[0] == 0
    wanted: dict[tuple[str, str], int] = {("customers", "missing"): 1, ("products", "different"): 2}
    with psycopg.connect(mall.settings.database_url) as db:
        db.execute("SELECT FROM sink_offsets FOR UPDATE")
        for statement, (table, kind, count) in DAMAGE.items():
            done = db.execute(statement.encode(), [hurt.tenant])
            assert done.rowcount == count, statement
            wanted[table, kind] = wanted.get((table, kind), 0) + count
        [(low,), (high,)] = db.execute(
            "SELECT product_id FROM products WHERE tenant_id = %s ORDER BY sku LIMIT 2", [hurt.tenant]
        )
        # Two products with each other's sku: each is in the way of the other's right row.
        skus = dict(db.execute("SELECT product_id, sku FROM products WHERE tenant_id = %s", [hurt.tenant]).fetchall())
        for product, sku in ((low, "for a moment"), (high, skus[low]), (low, skus[high])):
            db.execute(
                "UPDATE products SET sku = %s WHERE tenant_id = %s AND product_id = %s", [sku, hurt.tenant, product]
            )
    marks = "SELECT FROM metrics_marks WHERE tenant_id = %s"
    eventually(lambda: not mall.sql(marks, quiet.tenant))
    untouched = rows_of(mall, quiet.tenant)
    assert "tenant_daily_metrics" in {row[0] for row in untouched}
    with traffic(hurt, busy):
        for _ in range(2):
            code, said = replay(mall, hurt.tenant)
            assert (code, differing(said)) == (1, wanted)
        assert replay(mall, busy.tenant)[0] == 0
        code, promoted = replay(mall, hurt.tenant, "--promote")
        assert (code, differing(promoted), promoted["promoted"]) == (0, wanted, True)
        assert 0 < promoted["held_s"] < 5
        code, after = replay(mall, hurt.tenant)
        assert (code, differing(after)) == (0, {})
    [sample] = [one for one in said["tables"]["orders"]["samples"] if one["kind"] == "different"]
    assert sample["key"] == {"tenant_id": hurt.tenant, "external_order_id": "A-5"}
    assert (sample["live"], sample["topics"]) == ({"total_amount": 999.0}, {"total_amount": 10.0})
    mall.drained()
    assert rows_of(mall, quiet.tenant) == untouched
    eventually(lambda: not mall.sql(marks, hurt.tenant))
    counted = mall.sql("SELECT sum(orders) FROM tenant_daily_metrics WHERE tenant_id = %s", hurt.tenant)
    assert counted == mall.sql("SELECT count(*) FROM orders WHERE tenant_id = %s", hurt.tenant)
    for tenant in (hurt.tenant, quiet.tenant, busy.tenant):
        assert replay(mall, tenant)[0] == 0
    done = mall.cli("rebuild", "--json")
    assert (done.returncode, differing(json.loads(done.stdout))) == (0, {})
    assert mall.cli("replay", "--clean", "--json").stdout.strip() == '{"dropped": []}'
    assert mall.children["sinks"].restarts == 0


def test_people_are_told_what_differs_and_what_to_do(mall: Pipeline) -> None:
    shop = Merchant(mall)
    shop.orders(1, 2, 3)
    mall.drained()
    mall.sql("DELETE FROM orders WHERE tenant_id = %s AND external_order_id = 'A-2' RETURNING 1", shop.tenant)
    told = mall.cli("replay", "--tenant", shop.tenant)
    assert told.returncode == 1
    assert ["orders", "1", "0", "0"] in [line.split() for line in told.stdout.splitlines()]
    assert f"orders missing [{shop.tenant} A-2] id=" in told.stdout
    assert "1 rows differ; --promote puts them right" in told.stdout
    assert (
        "promoted: 1 rows put right; sinks were held back for"
        in mall.cli("replay", "--tenant", shop.tenant, "--promote").stdout
    )
    assert "nothing differs" in mall.cli("replay", "--tenant", shop.tenant).stdout
    unknown = mall.cli("replay", "--tenant", "no-such-shop")
    assert unknown.returncode == 2
    assert "neither the topics nor the tables know a tenant 'no-such-shop'" in unknown.stderr


def test_rebuild_heals_every_tenant_at_once(mall: Pipeline) -> None:
    shops = [Merchant(mall) for _ in range(2)]
    for shop in shops:
        shop.orders(1, 2)
    mall.drained()
    assert len(mall.sql("DELETE FROM orders WHERE tenant_id = ANY(%s) RETURNING 1", [s.tenant for s in shops])) == 4
    done = mall.cli("rebuild", "--promote", "--json")
    assert (done.returncode, differing(json.loads(done.stdout))) == (0, {("orders", "missing"): 4})
    assert all(replay(mall, shop.tenant)[0] == 0 for shop in shops)
    mall.drained()


def test_a_range_is_merged_and_newer_rows_stay(mall: Pipeline) -> None:
    shop = Merchant(mall)
    shop.orders(1, 2, 3, order_status="pending")
    mall.drained()
    [(since,)] = mall.sql("SELECT clock_timestamp()::text")
    shop.orders(2, 4, 5, order_status="paid")
    mall.drained()
    [(until,)] = mall.sql("SELECT clock_timestamp()::text")
    shop.orders(4, order_status="shipped")
    mall.drained()
    mall.sql("DELETE FROM orders WHERE tenant_id = %s AND external_order_id IN ('A-1', 'A-5') RETURNING 1", shop.tenant)
    mall.sql("DELETE FROM order_items WHERE tenant_id = %s AND external_order_id = 'A-5' RETURNING 1", shop.tenant)
    mall.sql("UPDATE orders SET customer_name = 'x' WHERE external_order_id = 'A-2' AND tenant_id = %s RETURNING 1",
             shop.tenant)  # fmt: skip
    between = ("--from", since.replace(" ", "T"), "--to", until.replace(" ", "T"))
    code, said = replay(mall, shop.tenant, *between)
    wanted = {("orders", "missing"): 1, ("orders", "different"): 1, ("order_items", "missing"): 2}
    assert (code, said["merged"], differing(said)) == (1, True, wanted)
    refused = mall.cli("replay", "--tenant", shop.tenant, *between, "--promote")
    assert (refused.returncode, "--promote --merge" in refused.stderr) == (2, True)
    assert replay(mall, shop.tenant, *between, "--promote", "--merge")[0] == 0
    status = mall.sql(
        "SELECT external_order_id, order_status, customer_name FROM orders WHERE tenant_id = %s ORDER BY 1", shop.tenant
    )
    assert status == [("A-2", "paid", None), ("A-3", "pending", None), ("A-4", "shipped", None), ("A-5", "paid", None)]
    code, said = replay(mall, shop.tenant, "--promote")
    assert differing(said) == {("orders", "missing"): 1}


def test_an_offset_needs_its_topic_and_tables_that_others_fill_too_are_left_out(mall: Pipeline) -> None:
    shop = Merchant(mall)
    shop.orders(1)
    mall.drained()
    assert "name it with --topics" in mall.cli("replay", "--tenant", shop.tenant, "--from", "7").stderr
    for bounds in (("7", "7", "--topics", "outcomes"), ("2026-02-01", "2026-01-01")):
        reversed_ = mall.cli("replay", "--tenant", shop.tenant, "--from", bounds[0], "--to", *bounds[1:])
        assert (reversed_.returncode, "--from must come before --to" in reversed_.stderr) == (2, True)
    code, said = replay(mall, shop.tenant, "--to", "2020-01-01", "--topics", "ingestion.unique")
    assert (code, said["messages"]) == (0, 0), "a tenant that is known, and a range in which nothing of it lies"
    assert "neither an offset nor a time" in mall.cli("replay", "--tenant", shop.tenant, "--from", "noon").stderr
    assert "--topics: orders" in mall.cli("replay", "--tenant", shop.tenant, "--topics", "orders").stderr
    code, said = replay(mall, shop.tenant, "--topics", "ingestion.unique,tenants")
    assert (code, set(said["left_out"])) == (0, {"ledger", "row_errors"})
    assert "orders" in said["tables"]
    name = mall.settings.named(topics.INGESTION_UNIQUE)
    at = topics.partition_of(shop.tenant.encode(), mall.settings.partitions)
    [(end,)] = mall.sql("SELECT next_offset FROM sink_offsets WHERE topic = %s AND partition = %s", name, at)
    mall.sql("DELETE FROM orders WHERE tenant_id = %s RETURNING 1", shop.tenant)
    only = ("--topics", "ingestion.unique", "--from", str(end - 1))
    assert differing(replay(mall, shop.tenant, *only)[1]) == {("orders", "missing"): 1}
    assert differing(replay(mall, shop.tenant, *only, "--promote", "--merge")[1]) == {("orders", "missing"): 1}
    assert replay(mall, shop.tenant)[0] == 0
    shop.post("stock-events", {"product_id": "P", "kind": "received", "quantity": 1})
    mall.drained()
    mall.sql("DELETE FROM stock_movements WHERE tenant_id = %s RETURNING 1", shop.tenant)
    name = mall.settings.named(topics.OUTCOMES)
    [(end,)] = mall.sql("SELECT next_offset FROM sink_offsets WHERE topic = %s AND partition = %s", name, at)
    only = ("--topics", "outcomes", "--from", str(end - 1), "--to", str(end))
    assert differing(replay(mall, shop.tenant, *only)[1]) == {("stock_movements", "missing"): 1}


def test_one_replay_of_a_tenant_at_a_time_and_a_killed_one_leaves_nothing_for_long(mall: Pipeline) -> None:
    shop, other = Merchant(mall), Merchant(mall)
    shop.orders(1)
    other.orders(1)
    mall.drained()
    schema = shadow.schema_of(shop.tenant)
    with slow_replay(mall, shop.tenant):
        eventually(lambda: mall.sql("SELECT to_regclass(%s)", f"{schema}.orders") != [(None,)])
        eventually(lambda: mall.sql(f"SELECT FROM {schema}.orders"))
        second = mall.cli("replay", "--tenant", shop.tenant)
        assert second.returncode == 75
        assert f"another replay of tenant '{shop.tenant}' is running" in second.stderr
        assert replay(mall, other.tenant)[0] == 0
        assert mall.cli("replay", "--clean", "--json").stdout.strip() == '{"dropped": []}'
    eventually(lambda: json.loads(mall.cli("replay", "--clean", "--json").stdout) == {"dropped": [schema]})
    with slow_replay(mall, shop.tenant):
        eventually(lambda: mall.sql("SELECT to_regclass(%s)", f"{schema}.orders") != [(None,)])
    eventually(lambda: mall.cli("replay", "--tenant", shop.tenant).returncode == 0)
    assert mall.sql("SELECT FROM pg_namespace WHERE starts_with(nspname, 'replay_')") == []


@contextmanager
def slow_replay(pipeline: Pipeline, tenant: str) -> Iterator[None]:
    """A replay that sleeps after its first batch, and is killed when the block ends."""
    command = [sys.executable, "-c", SLOW, "replay", "--tenant", tenant]
    process = subprocess.Popen(command, env={**os.environ, **pipeline.settings.env()})
    try:
        yield
    finally:
        process.kill()
        process.wait()


def test_a_shadow_that_is_not_whole_is_not_promoted(mall: Pipeline) -> None:
    shop = Merchant(mall)
    shop.orders(1)
    mall.drained()
    mall.sql("DELETE FROM orders WHERE tenant_id = %s RETURNING 1", shop.tenant)

    def lose_one(progress: Progress) -> None:
        if progress.step == "comparing":
            mall.sql(
                f"UPDATE {shadow.schema_of(shop.tenant)}.sink_offsets SET next_offset = next_offset - 1 RETURNING 1"
            )

    with pytest.raises(Misconfigured, match="incomplete and is not promoted"):
        replaying.replay(mall.settings, Plan(shop.tenant, promote=True), lose_one)
    with pytest.raises(Unavailable, match="held back for longer than"):
        replaying.replay(mall.settings, Plan(shop.tenant, promote=True, hold_s=0.001))
    assert mall.sql("SELECT FROM orders WHERE tenant_id = %s", shop.tenant) == []
    assert differing(replay(mall, shop.tenant, "--promote")[1]) == {("orders", "missing"): 1}


def test_a_gateway_starts_beside_a_shadow(mall: Pipeline) -> None:
    shop = Merchant(mall)
    shop.orders(1)
    mall.drained()
    assert replay(mall, shop.tenant, "--keep")[1]["schema"] == shadow.schema_of(shop.tenant)
    mall.kill("gateway")
    eventually(lambda: mall.children["gateway"].alive() and _serves(mall), within=30)
    assert json.loads(mall.cli("replay", "--clean", "--json").stdout) == {"dropped": [shadow.schema_of(shop.tenant)]}


def _serves(pipeline: Pipeline) -> bool:
    try:
        return pipeline.http.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False
