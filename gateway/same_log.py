"""The proof, at the start, that the topics have as many partitions as the database was filled from."""

from typing import Final

import psycopg

from producers.admin import refuse_other_count
from schemas import topics
from schemas.settings import Settings

_PATIENCE_MS: Final = 3_000


def prove(settings: Settings, partitions: int) -> None:
    """Return where that is so, or where PostgreSQL does not say: it is away, not migrated, or nothing is in it.

    `partitions` is what all topics have (`producers.admin.verify`). Raises Misconfigured.
    """
    name = settings.named(topics.INGESTION_UNIQUE)
    try:
        with psycopg.connect(
            settings.reader_database_url, application_name="tillstream-gateway", connect_timeout=3
        ) as db:
            db.execute("SELECT set_config('statement_timeout', %s, false)", [str(_PATIENCE_MS)])
            row = db.execute("SELECT count(*) FROM sink_offsets WHERE topic = %s", [name]).fetchone()
    except (psycopg.OperationalError, psycopg.errors.UndefinedTable):
        return
    if row is not None and row[0]:
        refuse_other_count(name, partitions, row[0])
