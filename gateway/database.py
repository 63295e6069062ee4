"""PostgreSQL as the gateway sees it: a login that may only read, one tenant at a time, and that may be away."""

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, Self
from weakref import WeakValueDictionary

import psycopg
from psycopg import IsolationLevel
from psycopg.errors import InsufficientPrivilege, QueryCanceled, UndefinedColumn, UndefinedTable
from psycopg_pool import AsyncConnectionPool, PoolTimeout
from starlette.requests import Request

from gateway import isolation
from gateway.problems import Problem
from producers.stored import READING
from schemas import metrics
from schemas.errors import Misconfigured, Unavailable
from schemas.settings import Settings

log = logging.getLogger(__name__)

Db = psycopg.AsyncConnection[Any]

CONNECT: Final[dict[str, Any]] = {
    "application_name": "tillstream-gateway",
    "client_encoding": "utf8",
    "connect_timeout": 3,
    # A host that vanished says nothing: the kernel asks it after 5 s, and gives up 4 s later.
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 2,
}
ENVIRONMENT: Final = (psycopg.OperationalError, UndefinedTable, UndefinedColumn, InsufficientPrivilege)
"""Faults of PostgreSQL or of its migrations, which a later try may not meet; others are faults of ours."""
_CONNECTIONS: Final = 8
_OF_TENANT: Final = 3
"""So many of them at most work on one tenant's reads, so that slow ones leave connections to others."""
_PATIENCE_S: Final = 2.0
"""How long a request waits for one of them, and a look for its answer."""
_PAGE_S: Final = 10
"""How long PostgreSQL may work on one statement of a request."""
_LOOK_S: Final = 0.5
_AWAY: Final = "PostgreSQL is away, or not migrated"


class Database:
    """Reading connections while PostgreSQL answers; while it is away, Unavailable at once.

    A task looks twice a second. Before each first read it proves that tenants are isolated (gateway/isolation.py), and
    ends the process with exit code 2 where they are not.
    """

    def __init__(self, settings: Settings) -> None:
        self.url = settings.reader_database_url
        self._pool: AsyncConnectionPool[Db] | None = None
        self._why = "" if self.url else "this gateway has no database to read from (TILLSTREAM_READER_DATABASE_URL)"
        self._in_use: set[Db] = set()
        self._places: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()  # of those who read now
        self._looked = asyncio.Event()
        self._doubted = asyncio.Event()
        metrics.POOL_BUSY.set_function(lambda: len(self._in_use))
        if self.url:
            metrics.DATABASE_UP.labels("read").set_function(lambda: self._pool is not None)

    async def __aenter__(self) -> Self:
        if self.url:
            self._watching = asyncio.create_task(self._watch())
            await self._looked.wait()
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self.url:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching

    @asynccontextmanager
    async def transaction(self, tenant_id: str) -> AsyncIterator[Db]:
        """A read-only transaction, of one snapshot, that sees this tenant's rows only.

        Raises Unavailable while PostgreSQL is away, busy, too slow or not migrated.
        """
        if (pool := self._pool) is None:
            raise Unavailable(self._why or _AWAY)
        try:
            asked = time.perf_counter()
            async with pool.connection() as db:
                metrics.POOL_WAIT_SECONDS.observe(time.perf_counter() - asked)
                self._in_use.add(db)
                try:
                    await db.execute("SELECT set_config('app.tenant_id', %s, true)", [tenant_id])
                    yield db
                finally:
                    self._in_use.discard(db)
        except PoolTimeout as exc:
            metrics.POOL_TIMEOUTS.inc()
            raise Unavailable("all connections to PostgreSQL are busy") from exc
        except QueryCanceled as exc:
            raise Unavailable(f"PostgreSQL needed more than {_PAGE_S} s; ask for less at a time") from exc
        except psycopg.OperationalError as exc:
            self._doubted.set()
            raise Unavailable("PostgreSQL does not answer") from exc
        except (UndefinedTable, UndefinedColumn, InsufficientPrivilege) as exc:
            log.error("%s; if a migration is missing, run: tillstream migrate", exc)
            raise Unavailable("the database is of another version than this gateway") from exc

    @asynccontextmanager
    async def place(self, tenant_id: str) -> AsyncIterator[None]:
        """Counts as one of the tenant's reads at work. Raises Unavailable where none has ended in time."""
        places = self._places.setdefault(tenant_id, asyncio.Semaphore(_OF_TENANT))
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await places.acquire()
        except TimeoutError as exc:
            metrics.POOL_TIMEOUTS.inc()
            raise Unavailable(
                f"{_OF_TENANT} reads of this tenant are at work, as many as may be, and take long"
            ) from exc
        try:
            yield
        finally:
            places.release()

    def must_answer(self) -> None:
        """Raises Problem 503 while PostgreSQL is away, or not proven yet to isolate tenants."""
        if self._pool is None:
            raise reads_unavailable(self._why or _AWAY)

    async def _watch(self) -> None:
        while True:
            try:
                await asyncio.to_thread(isolation.prove, self.url)
                await self._serve()
            except (Unavailable, psycopg.Error) as exc:
                if not self._why:
                    log.warning("reads answer 503: %s", exc)
                self._why = _AWAY
            except Misconfigured as exc:
                log.critical("%s", exc)
                logging.shutdown()
                os._exit(2)  # at once: what else runs here could read
            self._looked.set()
            await asyncio.sleep(_LOOK_S)

    async def _serve(self) -> None:
        """Hold a pool until PostgreSQL goes away, then raise OperationalError or Unavailable."""
        pool: AsyncConnectionPool[Db] = AsyncConnectionPool(
            self.url,
            min_size=1,
            max_size=_CONNECTIONS,
            open=False,
            timeout=_PATIENCE_S,
            kwargs=CONNECT | {"prepare_threshold": None},
            configure=_configure,
        )
        asking = await psycopg.AsyncConnection.connect(self.url, autocommit=True, **CONNECT)
        try:
            await pool.open(wait=True, timeout=_PATIENCE_S)
            if self._why:
                log.info("PostgreSQL answers: reads are served")
            self._pool, self._why = pool, ""
            self._looked.set()
            while True:
                await _ask(asking)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._doubted.wait(), _LOOK_S)
                self._doubted.clear()
        finally:
            self._pool = None
            for db in self._in_use:
                _cut(db)
            await pool.close(timeout=0.2)
            await asking.close()


@asynccontextmanager
async def reading(request: Request, tenant_id: str) -> AsyncIterator[Db]:
    """A transaction for a request that is nothing but a read. Raises Problem 503."""
    try:
        database: Database = request.state.database
        async with database.place(tenant_id), database.transaction(tenant_id) as db:
            yield db
    except Unavailable as exc:
        raise reads_unavailable(str(exc)) from exc


def reads_unavailable(why: str) -> Problem:
    """Ingestion goes on meanwhile."""
    return Problem(503, "reads_unavailable", f"{why}; try again", retry_after=1)


async def _configure(db: Db) -> None:
    await db.set_read_only(True)
    await db.set_isolation_level(IsolationLevel.REPEATABLE_READ)
    for name, value in (READING | {"statement_timeout": f"{_PAGE_S}s"}).items():
        await db.execute("SELECT set_config(%s, %s, false)", [name, value])
    await db.commit()


async def _ask(db: Db) -> None:
    """Return when PostgreSQL has answered; raises OperationalError when it has not in time."""
    answer = asyncio.create_task(db.execute("SELECT 1"))
    _, silent = await asyncio.wait({answer}, timeout=_PATIENCE_S)
    if silent:
        _cut(db)
    await answer


def _cut(db: Db) -> None:
    """Whoever waits for the server on this connection gets an OperationalError now; cancelling would wait for it."""
    with socket.socket(fileno=os.dup(db.fileno())) as connection:
        connection.shutdown(socket.SHUT_RDWR)
