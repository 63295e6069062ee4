"""The harness: one real Kafka and one real PostgreSQL a session, and pipelines of real processes on them.

The stores are started by pytest's first process, before xdist starts its workers, unless KAFKA_BOOTSTRAP_SERVERS and
DATABASE_URL name running ones. A pipeline has topics under a prefix of its own and a clone of a template database,
so that tests need no cleaning up and run side by side.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from pipeline import READER_PASSWORD, Pipeline
from shop import shop  # noqa: F401

from deploy import credentials
from deploy.broker import Broker
from deploy.database import Database
from deploy.stack import create_database
from deploy.supervisor import Child, Supervisor
from schemas.settings import Settings
from sinks.migrate import migrate

TEMPLATE = "tillstream_template"
_running = Supervisor()
_folder: list[Path] = []


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput") or config.option.collectonly or config.option.help:
        return
    wanted = [str(arg) for arg in config.args]
    if wanted and all("tests/unit" in arg for arg in wanted):
        return  # unit tests need no stores
    if not (os.environ.get("KAFKA_BOOTSTRAP_SERVERS") and os.environ.get("DATABASE_URL")):
        _start_stores()
    migrate(create_database(os.environ["DATABASE_URL"], TEMPLATE))
    credentials.reader_login(os.environ["DATABASE_URL"], READER_PASSWORD)


def _start_stores() -> None:
    folder = Path(tempfile.mkdtemp(prefix="tillstream-tests-"))
    _folder.append(folder)
    broker, database = Broker(folder / "kafka"), Database(folder / "postgresql")
    children = []
    for store in (broker, database):
        child = Child(
            store.name,
            store.command,
            folder / f"{store.name}.log",
            user=store.popen_user,
            stop_signal=store.stop_signal,
            stop_within=store.stop_within,
        )
        children.append(_running.add(child))
    for store, child in zip((broker, database), children, strict=True):
        store.wait_ready(child.alive)
    os.environ["KAFKA_BOOTSTRAP_SERVERS"] = broker.bootstrap_servers
    os.environ["DATABASE_URL"] = database.url


def pytest_unconfigure(config: pytest.Config) -> None:
    _running.stop()
    for folder in _folder:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """Gateway, streams and sinks that a whole worker's tests share; use fresh tenants."""
    with Pipeline(tmp_path_factory.mktemp("pipeline")) as shared:
        shared.start("streams", "sinks", "gateway")
        yield shared


@pytest.fixture
def own_pipeline(tmp_path: Path) -> Iterator[Pipeline]:
    """A pipeline for one test, to start, kill and restart as it likes."""
    with Pipeline(tmp_path) as own:
        yield own


@pytest.fixture
def db() -> Iterator[psycopg.Connection]:
    """A connection to an empty, migrated database of its own."""
    with Pipeline.database() as url, psycopg.connect(url) as connection:
        yield connection


@pytest.fixture
def settings() -> Settings:
    """Settings of the running stores."""
    return Settings.from_env()
