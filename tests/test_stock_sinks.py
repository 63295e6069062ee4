"""What sinks make of stock: levels that only go forward, the history of each product, and the ledger."""

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from folding import Folding, movement
from pipeline import Pipeline, eventually

from schemas import stock, topics

LEVELS = "SELECT product_id, quantity, version FROM stock_levels WHERE tenant_id = %s ORDER BY product_id"
HISTORY = (
    "SELECT kind, moved, outcome, code, quantity, version FROM stock_movements"
    " WHERE tenant_id = %s AND product_id = %s ORDER BY log_offset, row_index"
)
COUNTS = (
    "SELECT outcome, rows, applied, superseded, duplicate, conflict, rejected FROM ledger"
    " WHERE tenant_id = %s AND event_id = %s"
)
SAME = {
    "levels": "SELECT * FROM stock_levels ORDER BY tenant_id, product_id",
    "movements": "SELECT * FROM stock_movements ORDER BY tenant_id, product_id, log_offset, row_index",
    "ledger": "SELECT to_jsonb(ledger) - 'applied_at' FROM ledger ORDER BY topic, partition, log_offset",
    "row_errors": "SELECT * FROM row_errors ORDER BY topic, partition, log_offset, row_index",
}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """Sinks without streams: what they read is written by the tests."""
    with Pipeline(tmp_path_factory.mktemp("sinks")) as pipeline:
        pipeline.start("sinks")
        yield pipeline


def test_levels_history_and_ledger_say_what_streams_decided(alone: Pipeline) -> None:
    tenant, _ = alone.tenant()
    folding = Folding(alone)
    first = folding.take(
        tenant, [movement("received", 10, movement_id="m"), movement("sold", 3), movement("set", 5, "Q/1")]
    )
    second = folding.take(
        tenant,
        [
            movement("received", 10, movement_id="m"), movement("sold", 99, line=2),
            movement("set", 1, "Q/1", occurred_at=1), movement("adjusted", -1, expected_quantity=7),
            movement("set", 1, "x" * 5_000), movement("set", 1, movement_id="y\x00", line=6),
        ],
    )  # fmt: skip
    alone.drained()
    assert alone.sql(LEVELS, tenant) == [("P", 6, 3), ("Q/1", 5, 1)]
    assert alone.sql(HISTORY, tenant, "P") == [
        ("received", 10, "applied", None, 10, 1), ("sold", 3, "applied", None, 7, 2),
        ("received", 10, "duplicate", None, 10, 1), ("sold", 99, "rejected", "insufficient_stock", 7, 2),
        ("adjusted", -1, "applied", None, 6, 3), ("set", 1, "rejected", "invalid_movement_id", 6, 3),
    ]  # fmt: skip
    assert alone.sql(HISTORY, tenant, "Q/1")[1] == ("set", 1, "superseded", None, 5, 1)
    assert alone.sql(COUNTS, tenant, first) == [("applied", 3, 3, 0, 0, 0, 0)]
    assert alone.sql(COUNTS, tenant, second) == [("applied", 6, 1, 1, 1, 0, 3)]
    errors = alone.sql(
        "SELECT row_index, line, code, pointer, detail, row FROM row_errors WHERE tenant_id = %s ORDER BY 1", tenant
    )
    assert [error[:5] for error in errors] == [
        (1, 2, "insufficient_stock", "/quantity", "sold 99 of 7"),
        (4, 1, "invalid_product_id", "/product_id", "an id has 1 to 100 characters and no NUL"),
        (5, 6, "invalid_movement_id", "/event_id", "an id has 1 to 100 characters and no NUL"),
    ]
    assert json.loads(errors[0][5]) == {"product_id": "P", "kind": "sold", "quantity": 99}


def test_an_older_level_changes_nothing(alone: Pipeline) -> None:
    tenant, _ = alone.tenant()
    folding = Folding(alone)
    partition = topics.partition_of(topics.partition_key(tenant), alone.settings.partitions)
    key = topics.level_key(topics.partition_key(tenant), "P")
    for _ in range(3):
        folding.take(tenant, [movement("received", 1)])
    alone.drained()
    eventually(lambda: alone.sql(LEVELS, tenant) == [("P", 3, 3)])
    folding._producer.begin_transaction()
    folding.put_level(key, stock.Level(1, 1), partition)
    folding._producer.produce(alone.settings.named(topics.STOCK_LEVELS), b"n", b"\x00note", partition)
    folding.put_level(topics.level_key(topics.partition_key(tenant), "last"), stock.Level(9, 1), partition)
    folding._producer.commit_transaction(30)
    eventually(lambda: alone.sql(LEVELS, tenant) == [("P", 3, 3), ("last", 9, 1)])


def random_rows(rng: random.Random) -> list[dict[str, Any]]:
    return [
        movement(
            rng.choice(stock.KINDS), rng.randrange(9), f"P-{rng.randrange(5)}",
            movement_id=rng.choice([None, f"m{rng.randrange(40)}"]),
            occurred_at=rng.choice([None, 1_767_225_600_000_000 + rng.randrange(9)]),
            expected_quantity=rng.choice([None, None, 3]),
        )
        for _ in range(rng.randrange(1, 30))
    ]  # fmt: skip


def test_a_rebuilt_database_has_the_same_stock(own_pipeline: Pipeline) -> None:
    rng = random.Random(11)
    own_pipeline.backup()
    own_pipeline.start("sinks", restarted=False)
    shops = [own_pipeline.tenant()[0] for _ in range(3)]
    folding = Folding(own_pipeline)
    for _ in range(80):
        folding.take(rng.choice(shops), random_rows(rng), oversell=rng.random() < 0.3)
    report = own_pipeline.drained()
    outcomes = [tally.outcomes for tally in report.tenants.values()]
    assert all(sum(one[name] for one in outcomes) for name in stock.OUTCOMES)
    held = {topics.parse_level_key(key): level.quantity for key, level in folding.levels.items()}
    query = "SELECT tenant_id, product_id, quantity FROM stock_levels"
    eventually(lambda: {(t, p): q for t, p, q in own_pipeline.sql(query)} == held)
    own_pipeline.stop("sinks")
    first = {name: own_pipeline.sql(query) for name, query in SAME.items()}
    for rows in (1, 100_000):
        own_pipeline.restore()
        own_pipeline.settings = replace(own_pipeline.settings, sink_batch_rows=rows)
        own_pipeline.start("sinks", restarted=False)
        own_pipeline.drained()
        eventually(lambda: own_pipeline.sql(SAME["levels"]) == first["levels"])
        own_pipeline.stop("sinks")
        assert {name: own_pipeline.sql(query) for name, query in SAME.items()} == first, rows
