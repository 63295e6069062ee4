"""A tillstream to measure: own topics and database on the stores of a stack, and only the roles that are asked for."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, Final, Self

import psutil
import psycopg
from confluent_kafka.admin import AdminClient

from deploy.broker import HOST, free_port
from deploy.stack import READY_S, Stack, create_database, wait_until
from deploy.supervisor import Child
from producers import admin, tenants
from producers.tenants import Limits, Tenant
from sinks.migrate import migrate

TENANT: Final = "bench"
UNLIMITED: Final = Limits(0, 0)
_SAMPLE_S: Final = 0.2


class Installation:
    """`with Installation(stack, "ingest") as shop: shop.start("gateway")`; all of it is gone afterwards."""

    def __init__(self, stack: Stack, name: str) -> None:
        self._stack, self._name = stack, name
        self._children: dict[str, Child] = {}
        self.urls: dict[str, str] = {}
        """Where each role says how it is: readyz of a gateway, metrics of the others."""

    def __enter__(self) -> Self:
        settings = self._stack.settings
        database = f"bench_{self._name}"
        self._tables = temporary_database(settings.database_url, database)
        self.settings = replace(
            settings,
            database_url=self._tables.__enter__(),
            reader_database_url=settings.reader_database_url.rpartition("/")[0] + f"/{database}",
            prefix=f"{settings.prefix}bench-{self._name}.",
            gateway_port=free_port(),
            streams_data_dir=str(self._stack.data_dir / f"streams-{self._name}"),
            exports_url=str(self._stack.data_dir / f"exports-{self._name}"),
        )
        (self._stack.data_dir / f"streams-{self._name}").mkdir(exist_ok=True)
        admin.ensure(self.settings)
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop(*list(self._children))
        kafka = AdminClient({**self.settings.kafka, "log_level": 0})
        # Also where it is inside: Quix Streams puts a word of its own before the names of its changelogs.
        names = [name for name in kafka.list_topics(timeout=30).topics if self.settings.prefix in name]
        for deleted in kafka.delete_topics(names).values():
            deleted.result()
        self._tables.__exit__(None, None, None)

    @property
    def gateway_url(self) -> str:
        """Where the gateway serves."""
        return f"http://{HOST}:{self.settings.gateway_port}"

    def database(self) -> psycopg.Connection[Any]:
        """A connection as the owner of its tables."""
        return psycopg.connect(self.settings.database_url, autocommit=True)

    def start(self, *roles: str) -> None:
        """Return when they serve."""
        for role in roles:
            self.urls[role] = self._start(role)
        for role in roles:
            wait_until(self._children[role], self.urls[role], READY_S)

    def _start(self, role: str) -> str:
        settings = replace(self.settings, metrics_port=0 if role == "gateway" else free_port())
        log_file = self._stack.data_dir / "logs" / f"{self._name}-{role}.log"
        child = Child(role, lambda: [sys.executable, "-m", role], log_file, env=settings.env())
        child.start()
        self._children[role] = child
        return f"{self.gateway_url}/readyz" if role == "gateway" else f"http://{HOST}:{settings.metrics_port}/metrics"

    def stop(self, *roles: str) -> None:
        """Return when they have ended."""
        for role in roles:
            self._children.pop(role).stop()

    def tenant(self, tenant_id: str = TENANT, limits: Limits = UNLIMITED) -> str:
        """A tenant's API key. The gateway knows it a moment later; one that starts afterwards knows it at once."""
        tenant, key = tenants.with_new_key(Tenant(tenant_id, "Benchmark", limits=limits))
        tenants.put(self.settings, [tenant])
        return key

    def cpu_seconds(self) -> dict[str, float]:
        """CPU time that each process has used so far: the stores, and the roles that run now."""
        used = {}
        for child in (*self._stack.supervisor.children, *self._children.values()):
            root = psutil.Process(child.pid)
            family = (root, *root.children(recursive=True))
            used[child.name] = sum(map(_cpu_seconds, family))
        return used

    def resident(self, role: str) -> float:
        """Resident megabytes of a role now."""
        return float(psutil.Process(self._children[role].pid).memory_info().rss / 1e6)

    def resident_children(self, role: str) -> float:
        """Resident megabytes of the largest process that a role has started and that still runs; 0 of none."""
        sizes = [0.0]
        for child in psutil.Process(self._children[role].pid).children():
            with suppress(psutil.NoSuchProcess):
                sizes.append(child.memory_info().rss / 1e6)
        return max(sizes)

    @contextmanager
    def memory(self) -> Iterator[dict[str, float]]:
        """The most resident megabytes of each role that runs now, sampled until the block ends."""
        peak: dict[str, float] = {}
        processes = {role: psutil.Process(child.pid) for role, child in self._children.items()}
        done = threading.Event()

        def sample() -> None:
            while not done.wait(_SAMPLE_S):
                for role, process in processes.items():
                    peak[role] = max(peak.get(role, 0.0), process.memory_info().rss / 1e6)

        thread = threading.Thread(target=sample, daemon=True)
        thread.start()
        try:
            yield peak
        finally:
            done.set()
            thread.join()


def spent(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """CPU seconds between two looks, of the processes that both saw."""
    return {name: seconds - before[name] for name, seconds in after.items() if name in before}


@contextmanager
def temporary_database(server_url: str, name: str) -> Iterator[str]:
    """The URL of a migrated, empty database, which is dropped at the end."""
    drop = f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'.encode()
    with psycopg.connect(server_url, autocommit=True) as db:
        db.execute(drop)
    url = create_database(server_url, name)
    migrate(url)
    try:
        yield url
    finally:
        with psycopg.connect(server_url, autocommit=True) as db:
            db.execute(drop)


Say = Callable[[str], None]
"""Hears what is being measured now."""


def _cpu_seconds(process: psutil.Process) -> float:
    """Of a process and of its children that ended; 0 when it ended since it was listed, as PostgreSQL's workers do."""
    with suppress(psutil.NoSuchProcess):
        return float(sum(process.cpu_times()[:4]))
    return 0.0
