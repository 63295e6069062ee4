"""PostgreSQL as the gateway sees it: a login that may only read, and only one tenant at a time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, Self

import psycopg
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from schemas.errors import Unavailable
from schemas.settings import Settings

Db = psycopg.AsyncConnection[Any]

_PATIENCE_S: Final = 2.0
"""How long a request waits for a connection."""


class Database:
    """A pool of reading connections. Without `reader_database_url`, or while PostgreSQL is away, it is Unavailable."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.reader_database_url
        self._pool: AsyncConnectionPool[Db] | None = None

    async def __aenter__(self) -> Self:
        if self._url:
            self._pool = AsyncConnectionPool(
                self._url,
                min_size=1,
                max_size=8,
                open=False,
                timeout=_PATIENCE_S,
                kwargs={"application_name": "tillstream-gateway", "connect_timeout": 3},
            )
            await self._pool.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._pool is not None:
            await self._pool.close(timeout=2)

    @asynccontextmanager
    async def transaction(self, tenant_id: str) -> AsyncIterator[Db]:
        """A transaction that sees this tenant's rows only. Raises Unavailable while PostgreSQL is away."""
        if self._pool is None:
            raise Unavailable("this gateway has no database to read from (TILLSTREAM_READER_DATABASE_URL)")
        try:
            async with self._pool.connection() as db:
                await db.execute("SELECT set_config('app.tenant_id', %s, true)", [tenant_id])
                yield db
        except (PoolTimeout, psycopg.OperationalError) as exc:
            raise Unavailable("PostgreSQL does not answer") from exc
