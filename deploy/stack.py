"""The whole stack on one machine: stores, migrations, topics, the three roles as processes."""

import fcntl
import json
import logging
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

import httpx
import psycopg

from deploy import credentials, scrape
from deploy.broker import HOST, Broker, free_port
from deploy.database import Database
from deploy.supervisor import Child, Supervisor
from producers import admin
from schemas.errors import Misconfigured, Unavailable
from schemas.settings import Settings
from sinks.migrate import migrate

log = logging.getLogger(__name__)

STACK_FILE: Final = "stack.json"
ROLES: Final = ("streams", "sinks", "gateway")
READY_S: Final = 60.0
_ASSIGNED: Final = re.compile(r"^tillstream_assigned_partitions [1-9]", re.MULTILINE)


class Stack:
    """Everything under one data directory. `with Stack(...) as stack:` returns when all of it serves."""

    def __init__(
        self,
        data_dir: Path,
        settings: Settings,
        *,
        external_kafka: bool,
        external_database: bool,
        on_step: Callable[[str], None] = log.info,
        roles: Sequence[str] = ROLES,
    ) -> None:
        self.data_dir = data_dir.resolve()
        self.settings = settings
        self.supervisor = Supervisor(on_restart=self._write_stack_file)
        self._external_kafka = external_kafka
        self._external_database = external_database
        self._on_step = on_step
        self._roles = roles
        self._lock: IO[str] | None = None
        self.metrics_urls: dict[str, str] = {}

    @classmethod
    def from_env(
        cls, data_dir: Path, *, on_step: Callable[[str], None] = log.info, roles: Sequence[str] = ROLES
    ) -> Self:
        """Embedded stores, save where the environment names real ones, and those roles."""
        return cls(
            data_dir,
            Settings.from_env(),
            external_kafka=bool(os.environ.get("KAFKA_BOOTSTRAP_SERVERS")),
            external_database=bool(os.environ.get("DATABASE_URL")),
            on_step=on_step,
            roles=roles,
        )

    def __enter__(self) -> Self:
        self._take_lock()
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    @property
    def gateway_url(self) -> str:
        """Where the gateway serves."""
        return f"http://{self.settings.gateway_host}:{self.settings.gateway_port}"

    def stop(self) -> None:
        """Stop all that was started, and forget where it was. A second Ctrl-C does not cut it short."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
        self.supervisor.stop()
        (self.data_dir / STACK_FILE).unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.close()

    def _take_lock(self) -> None:
        try:
            self.data_dir.mkdir(parents=True, exist_ok=True)
            self._lock = (self.data_dir / "lock").open("w")
        except OSError as exc:
            raise Misconfigured(
                f"{self.data_dir} cannot be made or written ({exc.strerror}): choose another folder with --data-dir"
            ) from exc
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise Misconfigured(
                f"another stack runs in {self.data_dir}: stop it, or choose another folder with --data-dir"
            ) from exc

    def _start(self) -> None:
        (self.data_dir / "logs").mkdir(exist_ok=True)
        self._start_stores()
        self._on_step("migrations and topics")
        migrate(self.settings.database_url)
        admin.ensure(self.settings)
        self._take_credentials()
        if self._roles:
            self._on_step("gateway, streams and sinks")
            self._start_roles()
        self.supervisor.watch()
        self._write_stack_file()

    def _start_stores(self) -> None:
        started: list[tuple[Child, Broker | Database]] = []
        if not self._external_kafka:
            self._on_step("Apache Kafka (the first start on a machine downloads it)")
            broker = Broker(self.data_dir / "kafka")
            started.append((self._store(broker), broker))
            self.settings = replace(
                self.settings, kafka_bootstrap_servers=broker.bootstrap_servers, kafka_security_protocol="PLAINTEXT"
            )
        if not self._external_database:
            self._on_step("PostgreSQL")
            database = Database(self.data_dir / "postgresql")
            started.append((self._store(database), database))
        for child, store in started:
            store.wait_ready(child.alive, READY_S)
            if isinstance(store, Database):
                self.settings = replace(self.settings, database_url=create_database(store.url, "tillstream"))

    def _take_credentials(self) -> None:
        """What the environment names goes before what the data directory keeps."""
        kept, settings = credentials.load(self.data_dir / "credentials.json"), self.settings
        self.settings = replace(
            settings,
            secret=settings.secret or kept.secret,
            admin_token=settings.admin_token or kept.admin_token,
            reader_database_url=settings.reader_database_url
            or credentials.reader_login(settings.database_url, kept.reader_password),
        )

    def _store(self, store: Broker | Database) -> Child:
        return self.supervisor.add(
            Child(
                store.name,
                store.command,
                self.data_dir / "logs" / f"{store.name}.log",
                user=store.popen_user,
                stop_signal=store.stop_signal,
                stop_within=store.stop_within,
            )
        )

    def _start_roles(self) -> None:
        ports = {role: free_port() for role in ("streams", "sinks")}
        if not os.environ.get("TILLSTREAM_GATEWAY_PORT"):
            self.settings = replace(self.settings, gateway_port=free_port())
        if not os.environ.get("TILLSTREAM_EXPORTS_URL"):
            self.settings = replace(self.settings, exports_url=str(self.data_dir / "exports"))
        self.settings = replace(self.settings, streams_data_dir=str(self.data_dir / "streams"))
        (self.data_dir / "streams").mkdir(exist_ok=True)
        self.metrics_urls = {
            "gateway": f"{self.gateway_url}/metrics",
            **{role: f"http://{HOST}:{port}/metrics" for role, port in ports.items()},
        }
        children = [self._role(role, ports.get(role, 0)) for role in self._roles]
        for child in children:
            wait_until(child, self._ready_url(child.name), READY_S)

    def _role(self, role: str, metrics_port: int) -> Child:
        settings = replace(self.settings, metrics_port=metrics_port)
        return self.supervisor.add(
            Child(
                role,
                lambda: [sys.executable, "-m", role],
                self.data_dir / "logs" / f"{role}.log",
                env=settings.env(),
            )
        )

    def _ready_url(self, role: str) -> str:
        return f"{self.gateway_url}/readyz" if role == "gateway" else self.metrics_urls[role]

    def _write_stack_file(self) -> None:
        """For scripts: where everything is. Readable by the owner alone, since it holds passwords."""
        path, unfinished = self.data_dir / STACK_FILE, self.data_dir / f".{STACK_FILE}"
        unfinished.touch(mode=0o600)
        unfinished.write_text(
            json.dumps(
                {
                    "gateway_url": self.gateway_url,
                    "bootstrap_servers": self.settings.kafka_bootstrap_servers,
                    "database_url": self.settings.database_url,
                    "reader_database_url": self.settings.reader_database_url,
                    "admin_token": self.settings.admin_token,
                    "metrics_urls": self.metrics_urls,
                    "pids": {child.name: child.pid for child in self.supervisor.children},
                },
                indent=2,
            )
        )
        if self._roles:
            scrape.write(self.data_dir, self.metrics_urls, self.settings.admin_token)
        unfinished.replace(path)


def running(data_dir: Path, *, needed: bool = True) -> tuple[Settings, str]:
    """Settings, and the gateway's URL, of the stack that runs in `data_dir`; the environment goes before it.

    Raises Misconfigured where neither names one that is `needed`.
    """
    settings, path = Settings.from_env(), data_dir / STACK_FILE
    gateway_url = f"http://{settings.gateway_host}:{settings.gateway_port}"
    named = any(os.environ.get(name) for name in ("KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL"))
    known = json.loads(path.read_text()) if path.exists() else None
    if known is None or not any(map(_alive, known["pids"].values())):
        if named or not needed:
            return settings, gateway_url
        where = f"no stack runs in {data_dir}" + (": it was ended without a word" if known else "")
        raise Misconfigured(
            f"{where}. Start one (tillstream up --data-dir {data_dir}), say where it is (--stack-dir), or name its"
            " stores (KAFKA_BOOTSTRAP_SERVERS, DATABASE_URL)"
        )
    if not os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        settings = replace(settings, kafka_bootstrap_servers=known["bootstrap_servers"])
    if not os.environ.get("DATABASE_URL"):
        settings = replace(settings, database_url=known["database_url"])
    if not settings.reader_database_url:
        settings = replace(settings, reader_database_url=known["reader_database_url"])
    if not settings.admin_token:
        settings = replace(settings, admin_token=known["admin_token"])
    return settings, known["gateway_url"]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def create_database(server_url: str, name: str, template: str | None = None) -> str:
    """Create a database unless it exists; return its URL."""
    url = server_url.rpartition("/")[0] + "/" + name
    with psycopg.connect(server_url, autocommit=True) as db:
        if db.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone() is None:
            clause = f' TEMPLATE "{template}"' if template else ""
            db.execute(f'CREATE DATABASE "{name}"{clause}'.encode())
    return url


def wait_until(child: Child, url: str, within: float) -> None:
    """Return when `url` says that it serves: a gateway's /readyz, or a worker's metrics with partitions assigned.

    Raises Unavailable naming the log when the process ends or time runs out.
    """
    deadline = time.monotonic() + within
    while not _serves(url):
        if not child.alive():
            raise Unavailable(f"{child.name} ended while starting; why is in {child.log_file}")
        if time.monotonic() > deadline:
            raise Unavailable(f"{child.name} is not ready after {within:.0f} s; what it does is in {child.log_file}")
        time.sleep(0.05)


def _serves(url: str) -> bool:
    try:
        answer = httpx.get(url, timeout=2)
    except httpx.TransportError:
        return False
    assigned = not url.endswith("/metrics") or _ASSIGNED.search(answer.text) is not None
    return answer.status_code == 200 and assigned
