"""What a database that is empty, or older than the topics, does; and logs that it cannot have been filled from."""

import os
import subprocess
from pathlib import Path
from typing import Any

import confluent_kafka
import psycopg
import pytest
from confluent_kafka.admin import AdminClient, NewPartitions
from merchant import Merchant
from pipeline import Pipeline, eventually

from deploy.database import POSTGRES_BIN_PATH
from producers import admin
from schemas import topics
from sinks.replay.tables import REBUILT


def everything(pipeline: Pipeline) -> dict[str, list[Any]]:
    """Every row of every table, but for what says when or how often PostgreSQL wrote it."""
    return {
        name: sorted(
            str(row) for row in pipeline.sql(f"SELECT to_jsonb(t) - %s::text[] FROM {name} AS t", list(table.ignored))
        )
        for name, table in REBUILT.items()
    }


@pytest.fixture
def filled(own_pipeline: Pipeline) -> tuple[Pipeline, Merchant]:
    """A pipeline with a tenant that has rows in every table, and the copy of its database from before them."""
    own_pipeline.backup()
    own_pipeline.start("streams", "sinks", "gateway", restarted=False)
    merchant = Merchant(own_pipeline)
    merchant.everything()
    own_pipeline.drained()
    return own_pipeline, merchant


def test_an_empty_database_fills_itself(filled: tuple[Pipeline, Merchant]) -> None:
    pipeline, _ = filled
    pipeline.stop("sinks")
    before = everything(pipeline)
    assert all(before.values())
    pipeline.restore()
    assert not any(everything(pipeline).values())
    pipeline.start("sinks", restarted=False)
    pipeline.drained()
    pipeline.stop("sinks")
    assert everything(pipeline) == before


def test_one_restored_from_an_old_dump_catches_up(filled: tuple[Pipeline, Merchant], tmp_path: Path) -> None:
    pipeline, merchant = filled
    dump, url = tmp_path / "old.dump", pipeline.settings.database_url
    subprocess.run([POSTGRES_BIN_PATH / "pg_dump", "--format=custom", f"--file={dump}", url], check=True)
    for _ in range(30):
        merchant.more()
    pipeline.drained()
    pipeline.stop("sinks")
    before = everything(pipeline)
    server, name = os.environ["DATABASE_URL"], url.rpartition("/")[2]
    with psycopg.connect(server, autocommit=True) as db:
        db.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())
        db.execute(f'CREATE DATABASE "{name}"'.encode())
    subprocess.run([POSTGRES_BIN_PATH / "pg_restore", "--exit-on-error", f"--dbname={url}", dump], check=True)
    pipeline.connect()
    assert everything(pipeline) != before
    pipeline.start("sinks", restarted=False)
    pipeline.drained()
    pipeline.stop("sinks")
    assert everything(pipeline) == before


def test_a_sink_whose_database_is_put_back_under_it_fills_that_without_new_messages(own_pipeline: Pipeline) -> None:
    own_pipeline.start("streams", "sinks", "gateway")
    merchants = [Merchant(own_pipeline, seed) for seed in range(3)]
    merchants[0].everything()
    own_pipeline.drained()
    own_pipeline.backup()
    for merchant in merchants:
        merchant.everything()
    own_pipeline.drained()
    before = everything(own_pipeline)
    own_pipeline.restore()
    own_pipeline.drained()
    eventually(lambda: everything(own_pipeline) == before)
    assert "the database was put back to an earlier state" in own_pipeline.log("sinks")


def refused(pipeline: Pipeline, *command: str) -> str:
    """What a command says that ends with exit code 2."""
    done = pipeline.cli(*command)
    assert done.returncode == 2, (done.stdout, done.stderr)
    return done.stderr


def kafka(pipeline: Pipeline) -> AdminClient:
    return AdminClient(pipeline.settings.kafka)


def test_a_topic_that_was_made_again_is_refused(filled: tuple[Pipeline, Merchant]) -> None:
    pipeline, merchant = filled
    for role in ("sinks", "streams", "gateway"):
        pipeline.stop(role)
    name = pipeline.settings.named(topics.PRICES_VERDICTS)
    client = kafka(pipeline)
    client.delete_topics([name])[name].result()
    eventually(lambda: name not in client.list_topics().topics)
    admin.ensure(pipeline.settings)
    for command in (("sinks",), ("replay", "--tenant", merchant.tenant), ("rebuild",)):
        said = refused(pipeline, *command)
        assert "it was deleted and made again. Point at the old cluster, or start with an empty database" in said


def test_another_number_of_partitions_is_refused(filled: tuple[Pipeline, Merchant]) -> None:
    pipeline, merchant = filled
    for role in ("sinks", "streams", "gateway"):
        pipeline.stop(role)
    client = kafka(pipeline)
    growing = [pipeline.settings.named(name) for name, topic in topics.CATALOGUE.items() if not topic.single_partition]
    for done in client.create_partitions([NewPartitions(growing[0], 5)]).values():
        done.result()
    eventually(lambda: len(client.list_topics().topics[growing[0]].partitions) == 5)
    for command in (("sinks",), ("replay", "--tenant", merchant.tenant)):
        assert "partitions, not" in refused(pipeline, *command)
    for done in client.create_partitions([NewPartitions(name, 5) for name in growing[1:]]).values():
        done.result()
    eventually(lambda: all(len(client.list_topics().topics[name].partitions) == 5 for name in growing))
    for command in (("sinks",), ("replay", "--tenant", merchant.tenant), ("rebuild",), ("gateway",), ("streams",)):
        said = refused(pipeline, *command)
        filled = "the tables were made" if command == ("streams",) else "this database was filled"
        assert f"has 5 partitions, and {filled} from 4" in said
        assert "Point at the cluster that has 4, or begin anew with other topics" in said


def test_a_log_whose_beginning_is_gone_is_refused_unless_told(filled: tuple[Pipeline, Merchant]) -> None:
    pipeline, merchant = filled
    at = topics.partition_of(merchant.tenant.encode(), pipeline.settings.partitions)
    name = pipeline.settings.named(topics.INGESTION_UNIQUE)
    [(middle,)] = pipeline.sql("SELECT next_offset FROM sink_offsets WHERE topic = %s AND partition = %s", name, at)
    merchant.orders(50, 51)
    pipeline.drained()
    pipeline.stop("sinks")
    gone = confluent_kafka.TopicPartition(name, at, middle)
    client = kafka(pipeline)
    client.delete_records([gone])[gone].result()
    before = everything(pipeline)
    pipeline.sql("DELETE FROM orders WHERE external_order_id IN ('A-1', 'A-50') RETURNING 1")
    whole = refused(pipeline, "replay", "--tenant", merchant.tenant, "--promote")
    assert f"{name}[{at}] begins at {middle}" in whole
    assert "--merge" in whole
    assert "--merge" in refused(pipeline, "replay", "--tenant", merchant.tenant, "--from", "2020-01-01T00:00:00Z")
    merged = pipeline.cli("replay", "--tenant", merchant.tenant, "--promote", "--merge")
    assert "promoted: 1 rows put right" in merged.stdout, merged.stderr
    [lost] = set(before["orders"]) - set(everything(pipeline)["orders"])
    assert "'A-1'" in lost
    pipeline.restore()
    said = refused(pipeline, "sinks")
    assert f"begins at {middle}, after the stored offset 0: {middle} offsets are gone" in said
    assert "tillstream sinks --accept-gap" in said
    pipeline.start("sinks", restarted=False, patch="import sys; sys.argv.append('--accept-gap')")
    eventually(lambda: pipeline.sql("SELECT FROM orders WHERE external_order_id = 'A-51'"))
