"""The limit of every way into PostgreSQL: COPY and the sinks' own upsert on one connection, of rows made beforehand."""

import time
from itertools import islice
from typing import Final

import psycopg

from deploy.bench import rows
from deploy.bench.installation import TENANT, temporary_database
from sinks.sql import statement

BATCH_ROWS: Final = 20_000


class Limit:
    """`look()` before and after what is measured; `most` is the faster look, for others may use the machine too."""

    def __init__(self, database_url: str, entity: str, count: int) -> None:
        self._database_url, self._entity, self._count = database_url, entity, count
        lines = rows.lines(entity, 0, count)
        self._batches: list[bytes] = []
        while batch := list(islice(lines, BATCH_ROWS)):
            self._batches.append(rows.copy_text(entity, TENANT, batch, len(self._batches) * BATCH_ROWS))
        self.most = 0.0
        self.look()

    def look(self) -> None:
        """Rows a second into a fresh, migrated database: a transaction a batch, nothing else in it."""
        with temporary_database(self._database_url, "bench_limit") as url, psycopg.connect(url) as db:
            db.execute("SET ROLE tillstream_writer")
            db.execute(statement("staging"))
            db.execute("SET app.orders_staged = on")
            db.commit()
            started = time.perf_counter()
            for text in self._batches:
                with db.cursor().copy(f"COPY staged_{self._entity} FROM STDIN".encode()) as copy:
                    copy.write(text)
                db.execute(statement(f"upsert_{self._entity}"))
                db.commit()
            self.most = max(self.most, self._count / (time.perf_counter() - started))
