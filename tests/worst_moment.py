"""Faults at the moment that hurts most, in the process that they hit: once in a run of chaos, whoever comes first."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psycopg

from schemas.settings import Settings
from sinks.offsets import Move

_AT_MOST_S = 90.0
_OFFSETS = "SELECT topic, partition, next_offset FROM sink_offsets"


def kill_me(why: str) -> None:
    """SIGKILL, the first time in this run that it is asked for."""
    if _first(why):
        os.kill(os.getpid(), signal.SIGKILL)


def stop_me_until_passed(moves: list[Move]) -> None:
    """SIGSTOP, the first time in this run, until another sink has moved one of these offsets on."""
    if not _first("stopped"):
        return
    waited = [text for move in moves for text in (move.topic, str(move.partition), str(move.next))]
    subprocess.Popen([sys.executable, "-m", "tests.worst_moment", str(os.getpid()), *waited])
    signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)  # to the process, this thread might go on for a while


def _first(why: str) -> bool:
    """Whether no process of this run was here before. Each has a folder of its own in the run's."""
    try:
        (Path(Settings.from_env().streams_data_dir).parent / why).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _continue(pid: int, waited: list[tuple[str, int, int]]) -> None:
    deadline = time.monotonic() + _AT_MOST_S
    with psycopg.connect(Settings.from_env().database_url, autocommit=True) as db:
        while time.monotonic() < deadline:
            stored = {(topic, n): offset for topic, n, offset in db.execute(_OFFSETS).fetchall()}
            if any(stored[topic, partition] >= offset for topic, partition, offset in waited):
                break
            time.sleep(0.02)
    os.kill(pid, signal.SIGCONT)


if __name__ == "__main__":
    given = sys.argv[2:]
    _continue(int(sys.argv[1]), list(zip(given[::3], map(int, given[1::3]), map(int, given[2::3]), strict=True)))
