"""A real Prometheus: the machine's own, or Debian's package, unpacked without being installed."""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.broker import HOST, free_port
from deploy.stack import wait_until
from deploy.supervisor import Child

_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tillstream-tests"


@cache
def program(name: str) -> str:
    """The path of `prometheus` or `promtool`; skips the test where they cannot be had."""
    if found := shutil.which(name):
        return found
    unpacked = _CACHE / "prometheus" / "usr" / "bin" / name
    _CACHE.mkdir(parents=True, exist_ok=True)
    with (_CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not unpacked.exists():
            _unpack()
    return str(unpacked)


def _unpack() -> None:
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        pytest.skip("no prometheus on this machine, and no apt-get to get Debian's")
    for command in (["apt-get", "update"], None):
        got = subprocess.run(
            ["apt-get", "download", "prometheus"], cwd=_CACHE, capture_output=True, text=True, timeout=120
        )
        if got.returncode == 0:
            break
        if command is None:
            pytest.skip(f"no prometheus on this machine, and Debian's cannot be had: {got.stderr.strip()[-200:]}")
        subprocess.run(command, capture_output=True, timeout=120)
    [package] = _CACHE.glob("prometheus_*.deb")
    unfinished = _CACHE / "unfinished"
    subprocess.run(["dpkg-deb", "-x", package, unfinished], check=True, timeout=60)
    package.unlink()
    unfinished.replace(_CACHE / "prometheus")


def promtool(*arguments: str, folder: Path) -> str:
    """What promtool prints, run in a folder; an AssertionError with that where it finds a fault."""
    done = subprocess.run([program("promtool"), *arguments], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


class Prometheus:
    """Asks a running Prometheus."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=f"{url}/api/v1", timeout=10)

    def get(self, path: str, **parameters: str) -> Any:
        """`data` of an answer; an AssertionError with the error there was."""
        answer = self._http.get(path, params=parameters).json()
        assert answer["status"] == "success", (answer, parameters)
        return answer["data"]

    def values(self, query: str) -> list[float]:
        """What PromQL says now, without labels and times."""
        return [float(sample["value"][1]) for sample in self.get("/query", query=query)["result"]]


@contextmanager
def running(config: Path, folder: Path) -> Iterator[Prometheus]:
    """A Prometheus with this configuration."""
    url = f"http://{HOST}:{(port := free_port())}"
    command = [
        program("prometheus"),
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address={HOST}:{port}",
    ]
    child = Child("prometheus", lambda: command, folder / "prometheus.log")
    child.start()
    try:
        wait_until(child, f"{url}/-/ready", 30)
        yield Prometheus(url)
    finally:
        child.stop()
