"""The limit of every way into PostgreSQL: COPY and the sinks' own upsert on one connection, of rows made beforehand."""

import time
from itertools import islice
from typing import Final

import psycopg

from deploy.bench import rows
from deploy.bench.installation import TENANT, temporary_database
from sinks.sql import statement

BATCH_ROWS: Final = 20_000


def copy_and_upsert(database_url: str, entity: str, first: int, count: int) -> float:
    """Rows a second into a fresh, migrated database: a transaction a batch, nothing else in it."""
    lines = rows.lines(entity, first, count)
    batches: list[bytes] = []
    while batch := list(islice(lines, BATCH_ROWS)):
        batches.append(rows.copy_text(entity, TENANT, batch, len(batches) * BATCH_ROWS))
    with temporary_database(database_url, "bench_limit") as url, psycopg.connect(url) as db:
        db.execute("SET ROLE tillstream_writer")
        db.execute(statement("staging"))
        db.commit()
        started = time.perf_counter()
        for text in batches:
            with db.cursor().copy(f"COPY staged_{entity} FROM STDIN".encode()) as copy:
                copy.write(text)
            db.execute(statement(f"upsert_{entity}"))
            db.commit()
        return count / (time.perf_counter() - started)
