"""This machine: versions of what we need, room on the disk, file descriptors."""

import platform
import resource
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Final

import confluent_kafka
from packaging.requirements import Requirement

from deploy.doctor.finding import Finding, fail, ok, warn

_LITTLE_BYTES: Final = 2_000_000_000
_FILES: Final = 4_096
"""A broker opens a file and two indexes a segment; a gateway a socket a client."""


def look(data_dir: Path) -> Iterator[Finding]:
    """Versions, disk, limits."""
    wrong = list(_unfit())
    if wrong:
        yield fail("versions", "; ".join(wrong), "pip install --require-hashes -r constraints.txt, or: make test")
    else:
        yield ok("versions", f"Python {platform.python_version()}, librdkafka {confluent_kafka.libversion()[0]}")
    if data_dir.exists():
        free = shutil.disk_usage(data_dir).free
        found = f"{free / 1e9:,.1f} GB free where the stack keeps its data"
        remedy = "make room: a full disk stops Kafka and PostgreSQL"
        yield warn("disk", found, remedy) if free < _LITTLE_BYTES else ok("disk", found)
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files < _FILES:
        yield warn("files", f"a process may open {files} files", f"ulimit -n {_FILES} or more")


def _unfit() -> Iterator[str]:
    """What is installed in another version than pyproject.toml asks for."""
    for text in requires("tillstream") or ():
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            yield f"{requirement.name} is missing"
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            yield f"{requirement.name} is {installed}, not {requirement.specifier}"
