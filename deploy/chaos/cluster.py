"""The stack that a run breaks: broker, PostgreSQL on a small disk, a gateway, two workers of streams, two sinks."""

import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Final, Self

import psycopg

from deploy.broker import HOST, free_port
from deploy.stack import READY_S, Stack, wait_until
from deploy.supervisor import Child
from producers import tenants
from producers.tenants import Limits, Tenant
from schemas.errors import Unavailable
from schemas.settings import Settings

ROLES: Final = ("streams-a", "streams-b", "sinks-a", "sinks-b", "gateway")
TARGETS: Final = (*ROLES, "kafka", "postgresql")
SESSION_S: Final = 6.0
"""The shortest that Kafka's brokers allow."""
_UNLIMITED: Final = Limits(0, 0)


class Cluster:
    """`with Cluster(folder) as cluster:` returns when all of it serves; whatever dies is started again."""

    def __init__(
        self,
        folder: Path,
        *,
        modules: Mapping[str, str] | None = None,
        disk_mb: int = 0,
        on_step: Callable[[str], None] = lambda step: None,
    ) -> None:
        """`modules` run in the place of `streams`, `sinks` or `gateway`. PostgreSQL's disk has `disk_mb`, if not 0."""
        self._modules = dict(modules or {})
        settings = Settings(
            partitions=4,
            session_timeout_s=SESSION_S,
            delivery_timeout_s=3.0,
            sink_batch_rows=2_000,
            gateway_port=free_port(),
        )
        self._stack = Stack(
            folder, settings, external_kafka=False, external_database=False, on_step=on_step, roles=()
        )  # fmt: skip
        self._on_step = on_step
        self.folder = folder
        self.disk = _mounted(folder / "postgresql", disk_mb) if disk_mb else None
        self._urls: dict[str, str] = {}

    def __enter__(self) -> Self:
        # A stack that stops leaves Ctrl-C ignored, since its process ends then; ours may go on.
        self._handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            self._stack.__enter__()
            self.settings = replace(self._stack.settings)
            with psycopg.connect(self.settings.database_url) as db:
                db.execute(files("deploy.chaos").joinpath("observe.sql").read_bytes())
            self._on_step("two workers of streams, two sinks, a gateway")
            for name in ROLES:
                self._start(name)
            self.serving()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.stop()
        if threading.current_thread() is threading.main_thread():
            for number, handler in self._handlers.items():
                signal.signal(number, handler)
        if self.disk is not None:
            subprocess.run(["umount", "--lazy", str(self.disk)], check=False, capture_output=True)

    @property
    def gateway_url(self) -> str:
        """Where the gateway serves."""
        return f"http://{HOST}:{self.settings.gateway_port}"

    @property
    def children(self) -> dict[str, Child]:
        """Every process, by its name."""
        return {child.name: child for child in self._stack.supervisor.children}

    def serving(self, within: float = READY_S) -> None:
        """Return when every role serves; raises Unavailable."""
        for name in ROLES:
            _awaited(self.children[name], self._urls[name], within)

    def add_tenants(self, names: Iterable[str]) -> dict[str, str]:
        """Make tenants without limits, of whom the first may oversell; return their API keys."""
        keys, made = {}, []
        for n, name in enumerate(names):
            policies = tenants.Policies(oversell=n == 0)
            tenant, keys[name] = tenants.with_new_key(Tenant(name, name, limits=_UNLIMITED, policies=policies))
            made.append(tenant)
        tenants.put(self.settings, made)
        return keys

    def _start(self, name: str) -> None:
        role = name.partition("-")[0]
        settings = replace(
            self.settings,
            metrics_port=0 if role == "gateway" else free_port(),
            streams_worker_id=name,
            streams_data_dir=str(self.folder / name),
        )
        (self.folder / name).mkdir(exist_ok=True)
        metrics = f"http://{HOST}:{settings.metrics_port}/metrics"
        self._urls[name] = f"{self.gateway_url}/readyz" if role == "gateway" else metrics
        argv = [sys.executable, "-m", self._modules.get(role, role)]
        self._stack.supervisor.add(Child(name, lambda: argv, self.folder / "logs" / f"{name}.log", env=settings.env()))


def _awaited(child: Child, url: str, within: float) -> None:
    """As `wait_until`, but a process that ended meanwhile may come back."""
    deadline = time.monotonic() + within
    while True:
        try:
            return wait_until(child, url, max(1.0, deadline - time.monotonic()))
        except Unavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _mounted(folder: Path, megabytes: int) -> Path | None:
    """A file system of that size in memory; None where it cannot be mounted."""
    if shutil.which("mount") is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=755", "tillstream-chaos", str(folder)]
    return folder if subprocess.run(command, check=False, capture_output=True).returncode == 0 else None
