"""What a log says of waiting for PostgreSQL: that it begins, that it goes on, that it is over.

PostgreSQL refuses, and the sink tries again; or it is silent (stopped, a dead link, a lock), and the sink hangs in one
statement. A thread of its own looks, so that both are told alike.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

log = logging.getLogger(__name__)

_PATIENCE_S: Final = 5.0
"""What a long write may take before anybody is told."""
_AGAIN_S: Final = 30.0
_SILENT: Final = "no answer yet"


class Waiting:
    """Around whatever needs PostgreSQL: `with waiting.for_answer():`. One thread at a time may be in there."""

    def __init__(
        self,
        what: str = "",
        clock: Callable[[], float] = time.monotonic,
        told: Callable[[bool], object] = lambda waits: None,
    ) -> None:
        """`what` it is wanted for, where that is not to write. `told` hears whether it waits, whenever the log does."""
        self._what, self._clock, self._told = what and f" {what}", clock, told
        self._lock = threading.Lock()
        self._since: float | None = None
        self._said: float | None = None
        self._why = _SILENT
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="waiting", daemon=True)

    def start(self) -> None:
        """Begin to look, once a second."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._over.set()

    @contextmanager
    def for_answer(self) -> Iterator[None]:
        """Where this takes some seconds, the log says so; what fails is waited for until it succeeds."""
        with self._lock:
            if self._since is None:
                self._since, self._said = self._clock(), None
            since, self._why = self._since, _SILENT
        yield
        with self._lock:
            if self._said is not None:
                log.warning("PostgreSQL answers again%s, after %.0f s", self._what, self._clock() - since)
                self._told(False)
            self._since = None

    def because(self, why: str) -> None:
        """It refused, and is asked again."""
        with self._lock:
            self._why = why
        self.look()

    def look(self) -> None:
        """Say it where it is time to."""
        with self._lock:
            if self._since is None:
                return
            now = self._clock()
            if now - self._since >= _PATIENCE_S and (self._said is None or now - self._said >= _AGAIN_S):
                self._said = now
                log.warning("waiting for PostgreSQL%s for %.0f s: %s", self._what, now - self._since, self._why)
                self._told(True)

    def _watch(self) -> None:
        while not self._over.wait(1.0):
            self.look()
