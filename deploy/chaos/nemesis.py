"""The nemesis: faults at seeded moments. What it does and when is drawn before the run begins; see `schedule`."""

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import psutil
import psycopg
from msgspec import Struct, to_builtins

from deploy.chaos.history import History
from deploy.supervisor import Child

FAULTS: Final = ("kill", "pause", "restart", "cut", "stall", "zombie", "fill")
"""`kill` SIGKILL; `pause` SIGSTOP for a while; `restart` the stop signal; `cut` all connections to PostgreSQL; `stall`
a lock on the ledger, as a migration takes it; `zombie` a sink that is paused in the middle of a write until others have
its partitions; `fill` PostgreSQL's disk is full."""
_LIKELY: Final = {"kill": 8, "pause": 6, "restart": 3, "cut": 2, "stall": 2, "zombie": 2, "fill": 1}
_WORKERS: Final = ("streams", "sinks")
_PAST_SESSION_S: Final = 3.0
_POLL_S: Final = 0.02


class Strike(Struct, frozen=True):
    """A fault: when it begins, in seconds since the load began, whom it hits, and how long it lasts in seconds."""

    at: float
    fault: str
    target: str = ""
    for_s: float = 0.0


def schedule(
    seed: int, seconds: float, targets: Sequence[str], faults: Sequence[str], session_s: float, gap_s: float = 3.0
) -> list[Strike]:
    """Strikes of these kinds, on average one every `gap_s` seconds, the last of them over before `seconds` are.

    Half of the pauses of a worker outlast `session_s`, after which its partitions are given to another.
    """
    chance, at = random.Random(f"nemesis/{seed}"), 1.0
    strikes: list[Strike] = []
    while True:
        at += chance.expovariate(1 / gap_s)
        [fault] = chance.choices(faults, [_LIKELY[fault] for fault in faults])
        target, for_s = chance.choice(targets), chance.uniform(0.2, 4.0)
        if fault == "zombie":
            target = chance.choice([name for name in targets if name.startswith("sinks")] or list(targets))
            for_s = session_s + _PAST_SESSION_S
        elif fault == "pause" and target.startswith(_WORKERS) and chance.random() < 0.5:
            for_s = session_s + _PAST_SESSION_S
        elif fault in ("kill", "restart"):
            for_s = 0.0
        if at + for_s > seconds:
            return strikes
        strikes.append(Strike(round(at, 3), fault, target if fault not in ("cut", "stall", "fill") else "", for_s))


class Nemesis:
    """Carries a schedule out in threads of its own: `start`, then `finish`, after which nothing is broken any more."""

    def __init__(
        self,
        strikes: Sequence[Strike],
        children: dict[str, Child],
        database_url: str,
        disk: Path | None,
        history: History,
    ) -> None:
        """`disk` is a small file system that PostgreSQL's data lie on, or None where there is none to fill."""
        self._strikes, self._children, self._url = strikes, children, database_url
        self._disk, self._history = disk, history
        self._threads = [threading.Thread(target=self._strike, args=[one], name=one.fault) for one in strikes]
        self._began = 0.0
        self._over = threading.Event()
        self.struck: list[Strike] = []

    def start(self) -> None:
        """Begin now."""
        self._began = time.monotonic()
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        """Heal what is broken and return; what has not begun does not happen."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _strike(self, strike: Strike) -> None:
        if self._over.wait(max(0.0, self._began + strike.at - time.monotonic())):
            return
        do: Callable[[Strike], Any] = getattr(self, f"_{strike.fault}")
        begun, how = False, {}
        planned = {("planned" if name == "at" else name): value for name, value in to_builtins(strike).items()}
        try:
            with do(strike) as what:
                begun = True
                self.struck.append(strike)
                self._history.add("struck", **planned, what=what)
                self._over.wait(strike.for_s)
        except (psycopg.Error, psutil.Error, OSError) as exc:  # what it needs is down by another strike
            how = {"what": f"{type(exc).__name__}: {exc}"[:200]}
        self._history.add("healed" if begun else "struck", **planned, **how)

    @contextmanager
    def _kill(self, strike: Strike) -> Any:
        yield f"SIGKILL to {self._signal(strike.target, signal.SIGKILL)}"

    @contextmanager
    def _restart(self, strike: Strike) -> Any:
        yield f"{self._signal(strike.target, self._children[strike.target].stop_signal)} is asked to stop"

    @contextmanager
    def _pause(self, strike: Strike) -> Any:
        stopped = _processes(self._children[strike.target].pid)
        _all(stopped, signal.SIGSTOP)
        try:
            yield f"SIGSTOP to {[process.pid for process in stopped]}"
        finally:
            _all(stopped, signal.SIGCONT)

    @contextmanager
    def _cut(self, strike: Strike) -> Any:
        with psycopg.connect(self._url, autocommit=True, connect_timeout=2) as db:
            cut = db.execute(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            ).fetchone()
        yield f"{cut and cut[0]} connections cut"

    @contextmanager
    def _stall(self, strike: Strike) -> Any:
        with psycopg.connect(self._url, connect_timeout=2) as db:
            db.execute("SET lock_timeout = '3s'")
            db.execute("LOCK TABLE ledger IN ACCESS EXCLUSIVE MODE")
            yield "the ledger is locked"

    @contextmanager
    def _zombie(self, strike: Strike) -> Any:
        """Stop a sink while PostgreSQL holds its transaction up, then let PostgreSQL go on without it."""
        with ExitStack() as until_healed:
            with psycopg.connect(self._url, connect_timeout=2) as db:
                db.execute("SET lock_timeout = '3s'")
                db.execute("LOCK TABLE ledger IN ACCESS EXCLUSIVE MODE")
                waits = self._await_writer(db, self._children[strike.target].pid, 3.0)
                what = until_healed.enter_context(self._pause(strike))
            yield f"{what}, {'in the middle of a write' if waits else 'idle'}"

    def _await_writer(self, db: psycopg.Connection[Any], pid: int, within: float) -> bool:
        """Whether the sink of this process has a statement that waits for our lock, as soon as it has."""
        deadline = time.monotonic() + within
        while pid and time.monotonic() < deadline and not self._over.is_set():
            ports = [one.laddr.port for one in psutil.Process(pid).net_connections("tcp")]
            waiting = db.execute(
                "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND client_port = ANY(%s)", [ports]
            ).fetchone()
            if waiting:
                return True
            time.sleep(_POLL_S)
        return False

    @contextmanager
    def _fill(self, strike: Strike) -> Any:
        if self._disk is None:
            yield "not possible: no small disk could be mounted here (that takes root)"
            return
        filler = self._disk / "filler"
        try:
            with filler.open("wb") as file, suppress(OSError):  # PostgreSQL may be faster
                free = os.statvfs(self._disk)
                os.posix_fallocate(file.fileno(), 0, max(1, free.f_bavail) * free.f_frsize)
            yield "the disk of PostgreSQL is full"
        finally:
            filler.unlink(missing_ok=True)

    def _signal(self, target: str, number: signal.Signals) -> int:
        child = self._children[target]
        pid = child.pid
        if child.process is not None and pid:
            child.process.send_signal(number)
        return pid


def _processes(pid: int) -> list[psutil.Process]:
    """A process and those that it started: PostgreSQL has one a connection."""
    try:
        process = psutil.Process(pid) if pid else None
        return [] if process is None else [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _all(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:  # killed by another strike
            continue
