"""Starts processes, restarts those that die, stops them in reverse order; a restart that fails at once waits longer."""

import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from schemas.errors import Misconfigured, Unavailable

log = logging.getLogger(__name__)

_LOOK_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 10.0
_STEADY_S: Final = 30.0
"""A process that lived so long is restarted at once when it dies."""
_MAX_LOG_BYTES: Final = 20_000_000
_PR_SET_PDEATHSIG: Final = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass
class Child:
    """A process to keep alive. `command` is asked for the argv at every start."""

    name: str
    command: Callable[[], list[str]]
    log_file: Path
    env: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_within: float = 12.0
    process: subprocess.Popen[bytes] | None = None
    restarts: int = 0
    _failures: int = 0
    _started_at: float = 0.0
    _not_before: float = 0.0

    @property
    def pid(self) -> int:
        """Process id, 0 when it does not run."""
        return self.process.pid if self.process and self.process.poll() is None else 0

    def alive(self) -> bool:
        """Whether it runs now."""
        return self.pid != 0

    def start(self) -> None:
        """Start it, its output going to its log file."""
        argv = self.command()
        if self.log_file.exists() and self.log_file.stat().st_size > _MAX_LOG_BYTES:
            self.log_file.replace(self.log_file.with_suffix(".log.1"))
        with self.log_file.open("ab") as out:
            self.process = subprocess.Popen(
                argv,
                env={**os.environ, **self.env},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                user=self.user,
                group=self.user,
                extra_groups=[] if self.user else None,
                cwd="/" if self.user else None,
                start_new_session=True,  # Ctrl-C reaches us alone; we stop the others in order
                preexec_fn=self._die_with_parent if _libc else None,
            )
        self._started_at = time.monotonic()

    def _die_with_parent(self) -> None:
        assert _libc is not None
        _libc.prctl(_PR_SET_PDEATHSIG, self.stop_signal)

    def put_off(self, seconds: float) -> None:
        """Try no restart before then."""
        self._not_before = time.monotonic() + seconds

    def restart_if_dead(self, now: float) -> bool:
        """Start it again after it died, and say whether; pauses grow while it dies at once."""
        if self.process is None or self.process.poll() is None:
            return False
        if self._not_before == 0.0:
            steady = now - self._started_at > _STEADY_S
            self._failures = 0 if steady else self._failures + 1
            pause = 0.0 if self._failures <= 1 else min(0.5 * 2 ** (self._failures - 2), _LONGEST_PAUSE_S)
            self._not_before = now + pause
            log.warning("%s ended with %s; restarting in %.1f s, see %s", self.name, self.process.returncode, pause,
                        self.log_file)  # fmt: skip
        if now < self._not_before:
            return False
        self.start()
        self._not_before = 0.0
        self.restarts += 1
        return True

    def stop(self) -> None:
        """Ask it to end, wait, and end it when it does not."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(self.stop_signal)
        try:
            self.process.wait(self.stop_within)
        except subprocess.TimeoutExpired:
            log.error("%s did not stop within %.0f s; killing it", self.name, self.stop_within)
            self.process.kill()
            self.process.wait()


class Supervisor:
    """Children in the order they were added; `with` stops them all in reverse."""

    def __init__(self, on_restart: Callable[[], None] = lambda: None) -> None:
        self.children: list[Child] = []
        self._on_restart = on_restart
        self._stopping = threading.Event()
        self._resting = threading.Event()
        self._stopped = threading.Event()
        self._watcher: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def add(self, child: Child) -> Child:
        """Start a child."""
        self.children.append(child)
        child.start()
        return child

    def watch(self) -> None:
        """Restart from here on what dies."""
        if self._watcher is None:
            self._watcher = threading.Thread(target=self._watch, name="supervisor", daemon=True)
            self._watcher.start()

    def stop(self) -> None:
        """Stop every child, the last one first."""
        self._stopping.set()
        if self._watcher is not None:
            self._resting.wait()
        for child in reversed(self.children):
            child.stop()
        self._stopped.set()

    def _watch(self) -> None:
        while not self._stopping.wait(_LOOK_S):
            for child in list(self.children):
                try:
                    if child.restart_if_dead(time.monotonic()):
                        self._on_restart()
                except (Misconfigured, Unavailable, OSError) as exc:
                    log.error("%s cannot be restarted now: %s", child.name, exc)
                    child.put_off(_LONGEST_PAUSE_S)
        self._resting.set()
        # Linux tells a child that its parent died when the *thread* that started it ends.
        self._stopped.wait()
