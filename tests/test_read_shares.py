"""Slow reads of one tenant leave connections to the others."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg
from pipeline import Pipeline, eventually
from reader import Reader
from records import fill
from shop import problem

READS, PLACES = 12, 3
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def partition(reader: Reader) -> str:
    """Where a tenant's customers are."""
    query = "SELECT DISTINCT tableoid::regclass::text FROM customers WHERE tenant_id = %s"
    [(name,)] = reader.pipeline.sql(query, reader.tenant)
    return str(name)


@contextmanager
def locked(pipeline: Pipeline, table: str) -> Iterator[None]:
    """As long as the block lasts, whoever reads the table waits."""
    with psycopg.connect(pipeline.settings.database_url) as db:
        db.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE".encode())
        yield


def test_slow_reads_of_a_tenant_take_their_share_of_connections_only(own_pipeline: Pipeline) -> None:
    own_pipeline.start("gateway")
    greedy = Reader(own_pipeline)
    others = [Reader(own_pipeline) for _ in range(6)]
    with psycopg.connect(own_pipeline.settings.database_url) as db:
        for reader in (greedy, *others):
            fill(db, reader.tenant, customers=10)
    beside = next(reader for reader in others if partition(reader) != partition(greedy))
    with ThreadPoolExecutor(READS) as pool:
        with locked(own_pipeline, partition(greedy)):
            reads = [pool.submit(greedy.get, "customers") for _ in range(READS)]
            eventually(lambda: own_pipeline.sql(WAITING) == [(PLACES,)], within=10)
            for _ in range(20):
                asked = time.monotonic()
                assert beside.get("customers").status_code == 200
                assert time.monotonic() - asked < 1
            eventually(lambda: sum(read.done() for read in reads) == READS - PLACES, within=5)
            refused = [read.result() for read in reads if read.done()]
            assert own_pipeline.sql(WAITING) == [(PLACES,)]
        served = [read.result() for read in reads if read.result() not in refused]
    for answer in refused:
        assert "reads of this tenant are at work" in problem(answer, 503, "reads_unavailable")["detail"]
        assert answer.headers["retry-after"] == "1"
    assert [answer.status_code for answer in served] == [200] * PLACES
    assert greedy.get("customers").status_code == 200
