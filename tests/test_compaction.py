"""Changelogs that Kafka has compacted: the state that is read back from them is the state that was."""

import pickle
import shutil
from pathlib import Path
from typing import Any

from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from pipeline import Pipeline, eventually
from stock_log import Sender, assert_as_the_model, settled
from test_end_to_end import order
from test_recovery import log_of

from schemas import topics
from schemas.codec import Record
from schemas.settings import Settings
from streams import dedup

ROW: Record = {"line": 0, "product_id": "P", "kind": "received", "quantity": 1}
CHANGELOGS = (topics.STOCK_LEVELS, topics.DEDUP_STOCK, topics.DEDUP_INGESTION)
SOON = {"max.compaction.lag.ms": "100", "delete.retention.ms": "0"}
"""A segment ends with the first record after 0.1 s, and is due for the cleaner's next pass, within 15 s."""
SHOWING = """
import pathlib, pickle, streams.app as made
create, file = made.create_app, pathlib.Path({file!r})
def shown(table, entries):
    return {{key: value if type(value) is bytes else table.codec.encode(key, value) for key, value in entries.items()}}
def creating(*given):
    app = create(*given)
    @app.timer(0.1)
    async def show():
        if file.with_suffix(".wanted").exists():
            file.with_suffix(".wanted").unlink()
            tables = app.tables.items()
            found = {{name: {{n: shown(t, entries) for n, entries in t.data.partitions.items()}} for name, t in tables}}
            file.with_suffix(".part").write_bytes(pickle.dumps(found))
            file.with_suffix(".part").rename(file)
    return app
made.create_app = creating
"""
"""A worker that is asked for its tables writes them, values as the changelog has them, to a file."""


def compact_soon(settings: Settings) -> None:
    """Settings that the catalogue does not rule, so that a start does not refuse them."""
    entries = [ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in SOON.items()]
    changed = [
        ConfigResource(ResourceType.TOPIC, settings.named(name), incremental_configs=entries) for name in CHANGELOGS
    ]
    kafka = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers})
    for done in kafka.incremental_alter_configs(changed).values():
        done.result()


def state(file: Path) -> dict[str, dict[int, dict[bytes, bytes]]]:
    """The tables of the running worker: name, partition, key, value."""
    file.unlink(missing_ok=True)
    file.with_suffix(".wanted").touch()
    eventually(file.exists)
    found: dict[str, Any] = pickle.loads(file.read_bytes())
    return found


def fences(pipeline: Pipeline, topic: str) -> int:
    """Records of the fences; each flush of a partition overwrites its own."""
    return sum(message.key() == dedup.FENCE for message in log_of(pipeline, topic))


def test_state_from_compacted_changelogs_is_the_state_before(own_pipeline: Pipeline, tmp_path: Path) -> None:
    file, sender = tmp_path / "state", Sender(own_pipeline)
    own_pipeline.start("streams@a", restarted=False, patch=SHOWING.format(file=str(file)))
    own_pipeline.start("gateway", restarted=False)
    shops = [own_pipeline.tenant(partition=n) for n in range(own_pipeline.settings.partitions)]
    posted = 0

    def another_round() -> None:
        nonlocal posted
        for tenant, key in shops:
            own_pipeline.post(tenant, key, "orders", b"".join(order(n) for n in range(posted, posted + 10)))
        posted += 10
        sender.anything(100)
        settled(own_pipeline, sender.sent)  # so that each round is a flush of its own
        messages = posted // 10 * len(shops)
        eventually(lambda: len(log_of(own_pipeline, topics.INGESTION_UNIQUE)) == messages)

    for _ in range(6):
        another_round()
    sender.movements(sender.tenants[0], [ROW], "before")
    sender.flush()
    settled(own_pipeline, sender.sent)
    written, fenced = len(log_of(own_pipeline, topics.STOCK_LEVELS)), fences(own_pipeline, topics.DEDUP_INGESTION)
    compact_soon(own_pipeline.settings)
    another_round()  # the first record after 0.1 s closes a segment
    before = state(file)
    assert min(len(entries) for name in CHANGELOGS for entries in before[name].values()) > 1
    eventually(lambda: len(log_of(own_pipeline, topics.STOCK_LEVELS)) < written / 2, within=120)
    eventually(lambda: fences(own_pipeline, topics.DEDUP_INGESTION) < fenced / 2, within=120)
    own_pipeline.stop("streams@a")
    shutil.rmtree(Path(own_pipeline.settings.streams_data_dir) / "streams@a")
    own_pipeline.start("streams@b", restarted=False, patch=SHOWING.format(file=str(file)))
    eventually(lambda: own_pipeline.assigned("streams@b") == own_pipeline.settings.partitions)
    assert state(file) == before
    sender.movements(sender.tenants[0], [ROW], "before")
    sender.anything(100)
    outcomes = assert_as_the_model(own_pipeline, sender.sent)
    assert outcomes["duplicate"] > 0
