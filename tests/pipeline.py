"""A pipeline of real processes for tests: own topics, own database, on the session's stores."""

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import httpx
import psycopg

from deploy import credentials
from deploy.broker import HOST, free_port
from deploy.stack import create_database, wait_until
from deploy.supervisor import Child, Supervisor
from producers import admin, tenants
from producers.tenants import Tenant
from schemas import topics
from schemas.settings import Settings
from sinks.audit import Report, audit

TEMPLATE = "tillstream_template"
READER_PASSWORD = "reads-only"


def eventually(outcome: Callable[[], Any], within: float = 20.0) -> Any:
    """The first true result of `outcome`; an AssertionError with its last one when time runs out."""
    deadline = time.monotonic() + within
    while not (last := outcome()):
        assert time.monotonic() < deadline, f"not within {within:.0f} s; last: {last!r}"
        time.sleep(0.05)
    return last


class Pipeline:
    """`start("streams", "sinks", "gateway")` and use it; everything stops with the `with` block."""

    def __init__(self, folder: Path, **overrides: Any) -> None:
        self._folder = folder
        self._overrides = overrides
        self.supervisor = Supervisor()
        self.children: dict[str, Child] = {}
        self.urls: dict[str, str] = {}

    def __enter__(self) -> Self:
        self._database = self.database()
        database_url = self._database.__enter__()
        settings = replace(
            Settings.from_env(),
            database_url=database_url,
            reader_database_url=credentials.reader_url(database_url, READER_PASSWORD),
            secret="of-the-tests-" + "0" * 32,
            admin_token="admin-of-the-tests",
            prefix=f"t-{secrets.token_hex(4)}.",
            partitions=4,
            gateway_port=free_port(),
            streams_data_dir=str(self._folder),
            exports_url=str(self._folder / "exports"),
            session_timeout_s=6.0,
            dead_letter_limit=1.0,  # tests send little but bad messages; those of the breaker set it
        )
        settings = replace(settings, **self._overrides)
        self.settings = settings
        admin.ensure(settings)
        self.http = httpx.Client(base_url=f"http://{HOST}:{settings.gateway_port}", timeout=30)
        self._sql = psycopg.connect(settings.database_url, autocommit=True)
        return self

    def __exit__(self, *exc: Any) -> None:
        self.supervisor.stop()
        self.http.close()
        self._sql.close()
        self._database.__exit__(None, None, None)

    @staticmethod
    @contextmanager
    def database() -> Iterator[str]:
        """The URL of a migrated, empty database, which is dropped at the end."""
        server, name = os.environ["DATABASE_URL"], f"t_{secrets.token_hex(6)}"
        yield create_database(server, name, TEMPLATE)
        with psycopg.connect(server, autocommit=True) as db:
            db.execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    def start(self, *roles: str, restarted: bool = True, patch: str = "") -> None:
        """Start roles and wait until they serve; those that die are restarted, as in production.

        `streams@b` is one more worker of streams, in a slot of its own.
        `patch` is Python that runs in the process before its main: how a test injects a fault into a real process.
        """
        started = [self._start(role, patch) for role in roles]
        for child, url in started:
            wait_until(child, url, 60)
        if restarted:
            self.supervisor.watch()

    def _start(self, role: str, patch: str) -> tuple[Child, str]:
        module, _, slot = role.partition("@")
        settings = replace(self.settings, metrics_port=0 if role == "gateway" else free_port())
        if slot:
            settings = replace(settings, streams_worker_id=role, streams_data_dir=str(self._folder / role))
        port = settings.gateway_port if role == "gateway" else settings.metrics_port
        url = f"http://{HOST}:{port}/" + ("readyz" if role == "gateway" else "metrics")
        self.urls[role] = url
        code = f"{patch}\nfrom {module}.__main__ import main; main()"
        child = Child(role, lambda: [sys.executable, "-c", code], self._folder / f"{role}.log", env=settings.env())
        self.children[role] = self.supervisor.add(child)
        return child, url

    def stop(self, role: str) -> None:
        """End a role that was started with `restarted=False`; its name can be started again."""
        child = self.children.pop(role)
        self.supervisor.children.remove(child)
        child.stop()

    def backup(self) -> None:
        """Keep a copy of the database; no sink may run."""
        self._copy_database(self._database_name, self._database_name + "_backup")

    def restore(self) -> None:
        """Put the copy in the database's place, as an operator would after a loss; no sink may run."""
        self._copy_database(self._database_name + "_backup", self._database_name)

    @property
    def _database_name(self) -> str:
        return self.settings.database_url.rpartition("/")[2]

    def _copy_database(self, source: str, target: str) -> None:
        self._sql.close()
        with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as db:
            db.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = ANY(%s)", [[source, target]]
            )
            db.execute(f'DROP DATABASE IF EXISTS "{target}" WITH (FORCE)'.encode())
            db.execute(f'CREATE DATABASE "{target}" TEMPLATE "{source}"'.encode())
        self.connect()

    def connect(self) -> None:
        """Look into the database that has the pipeline's name now."""
        self._sql.close()
        self._sql = psycopg.connect(self.settings.database_url, autocommit=True)

    def settings_with(self, **changed: Any) -> Settings:
        """The settings with some changed, to be set before roles are started."""
        return replace(self.settings, **changed)

    def kill(self, role: str) -> None:
        """SIGKILL; the supervisor starts it again."""
        process = self.children[role].process
        assert process is not None
        process.kill()

    def assigned(self, worker: str) -> int:
        """How many partitions a worker of streams has; 0 while it does not answer."""
        try:
            text = httpx.get(self.urls[worker], timeout=1).text
        except httpx.TransportError:
            return 0
        [line] = [line for line in text.splitlines() if line.startswith("tillstream_assigned_partitions ")]
        return int(float(line.split()[1]))

    def log(self, role: str) -> str:
        """What a role has printed."""
        return (self._folder / f"{role}.log").read_text()

    def tenant(self, currency: str = "EUR", partition: int | None = None) -> tuple[str, str]:
        """A fresh tenant, on that partition or on any, that the gateway knows: its id and its API key."""
        names = iter(lambda: f"shop-{secrets.token_hex(4)}", None)
        fitting = (n for n in names if partition in (None, topics.partition_of(n.encode(), self.settings.partitions)))
        tenant, key = tenants.with_new_key(Tenant(next(fitting), "A shop", currency))
        tenants.put(self.settings, [tenant])
        if "gateway" in self.children:
            eventually(lambda: self.post(tenant.tenant_id, key, "orders", b"").status_code == 400)
        return tenant.tenant_id, key

    def post(self, tenant_id: str, key: str, entity: str, body: Any, query: str = "", **headers: str) -> httpx.Response:
        """POST /ingest/<entity>; keywords are headers, `_` for `-`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        path = f"/api/v1/tenants/{tenant_id}/ingest/{entity}{query}"
        return self.http.post(path, content=body, headers={"X-API-Key": key, **named})

    def sql(self, query: str, *arguments: Any) -> list[tuple[Any, ...]]:
        """Rows of a query, as the owner."""
        return self._sql.execute(query.encode(), arguments).fetchall()

    def drained(self, within: float = 40.0) -> Report:
        """The audit's report once every accepted row is in the ledger."""
        report = audit(self.settings, wait_s=within)
        assert report.drained, (report.missing, report.tenants)
        assert not report.wrong
        return report

    def cli(self, *arguments: str, columns: int = 200) -> subprocess.CompletedProcess[str]:
        """Run `tillstream` against this pipeline."""
        command = [sys.executable, "-c", "from deploy.cli import main; main()", *arguments]
        env = {**os.environ, **self.settings.env(), "COLUMNS": str(columns)}
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
