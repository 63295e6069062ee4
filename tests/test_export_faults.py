"""Exports where something breaks, is cancelled, or means harm; and in a bucket."""

import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import confluent_kafka
import httpx
import obstore
import obstore.store
import psutil
import psycopg
import pytest
from exporter import CSV, NDJSON, Exporter, files_of
from pipeline import Pipeline, eventually
from records import fill
from shop import problem

from deploy.broker import free_port
from producers.client import config
from schemas import codec, topics
from schemas.exports import EXPORT_REQUESTED

_GATE = 4_711
_WIDE = """
INSERT INTO products (tenant_id, product_id, id, sku, name, price, currency, active, attributes, version_at,
                      version_offset, version_row)
SELECT %s, 'P-' || n, gen_random_uuid(), 'SKU-' || n, 'n', 1, 'EUR', true,
       jsonb_build_object('text', repeat(md5(n::text), 3000)), now(), n, 1
FROM generate_series(10, 60) n
"""
_STOPS_AT_P50 = f"""
ALTER POLICY tenant ON products USING (
    tenant_id = nullif(current_setting('app.tenant_id', true), '')
    AND (product_id <> 'P-50' OR current_query() NOT LIKE 'COPY%' OR pg_advisory_lock_shared({_GATE}) IS NOT NULL))
"""


@pytest.fixture
def gated(own_pipeline: Pipeline) -> Iterator[tuple[Exporter, Callable[[], object]]]:
    """A tenant whose exports of products stop in their middle until the gate is opened."""
    own_pipeline.start("sinks", "gateway")
    exporter = Exporter(own_pipeline)
    url = own_pipeline.settings.database_url
    with psycopg.connect(url, autocommit=True) as db:
        db.execute(_WIDE, [exporter.tenant])
        db.execute(_STOPS_AT_P50.encode())
        db.execute(f'ALTER DATABASE "{url.rpartition("/")[2]}" SET enable_sort = off'.encode())
        db.execute("SELECT pg_advisory_lock(%s)", [_GATE])
        yield exporter, lambda: db.execute("SELECT pg_advisory_unlock(%s)", [_GATE])


def test_a_writer_that_is_killed_is_followed_by_another(gated: tuple[Exporter, Callable[[], object]]) -> None:
    exporter, open_gate = gated
    pipeline, sinks = exporter.pipeline, exporter.pipeline.children["sinks"]
    export_id = exporter.begin("products", "ndjson")

    def writer(attempt: int) -> psutil.Process:
        """The process that is in the middle of this attempt."""
        part = Path(pipeline.settings.exports_url) / exporter.tenant / f"{export_id}.{attempt}.ndjson.part"
        eventually(lambda: part.exists() and part.stat().st_size > 100_000)
        assert (exporter.state(export_id)["state"], exporter.state(export_id)["attempts"]) == ("running", attempt)
        problem(exporter.file(export_id), 409, "export_not_done")
        [found] = psutil.Process(sinks.pid).children()
        return found

    writer(1).kill()
    assert sinks.restarts == 0
    orphan = writer(2)
    pipeline.kill("sinks")
    eventually(lambda: not orphan.is_running())
    writer(3)
    assert sinks.restarts == 1

    more = [exporter.begin("customers", "csv") for _ in range(4)]
    eventually(lambda: len(exporter.page("exports")["data"]) == 5)
    problem(exporter.ask("customers", "csv"), 429, "too_many_exports")
    late = Exporter(pipeline)
    export_of_late = late.begin("customers", "csv")
    eventually(lambda: late.page("exports")["data"])

    open_gate()
    state = exporter.ended(export_id)
    assert (state["attempts"], state["rows_done"]) == (3, 51)
    assert exporter.file(export_id).content == exporter.get("products", NDJSON).content
    assert [file.name for file in files_of(exporter, export_id)] == [f"{export_id}.3.ndjson"]
    for each in more:
        exporter.ended(each)
    begun = pipeline.sql("SELECT export_id::text FROM exports ORDER BY started_at")
    assert begun.index((export_of_late,)) == 1  # four of another tenant do not come first

    # A store that takes no file: the export fails with a sentence, and the sink goes on.
    other = Exporter(pipeline)
    (Path(pipeline.settings.exports_url) / other.tenant).write_text("in the way")
    export_id = other.begin("customers", "csv")
    assert "the file store: " in other.ended(export_id, "failed")["reason"]
    problem(other.file(export_id), 409, "export_failed")
    assert sinks.restarts == 1


def test_what_waits_or_runs_is_cancelled(gated: tuple[Exporter, Callable[[], object]]) -> None:
    exporter, _ = gated  # which stays shut
    pipeline = exporter.pipeline
    running = exporter.begin("products", "ndjson", gzip=True)
    eventually(lambda: exporter.state(running)["state"] == "running")
    waiting = exporter.begin("customers", "csv")

    def shown(name: str) -> float:
        text = httpx.get(pipeline.urls["sinks"].replace("readyz", "metrics")).text
        return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"tillstream_{name} "))

    eventually(lambda: (shown('exports_open{state="queued"}'), shown('exports_open{state="running"}')) == (1, 1))
    eventually(lambda: shown("exports_wait_seconds") > 1)
    for export_id in (waiting, running):
        assert exporter.cancel(export_id).json()["state"] == "cancelled"
        eventually(lambda export_id=export_id: exporter.state(export_id)["state"] == "cancelled")
        problem(exporter.file(export_id), 410, "export_cancelled")
    eventually(lambda: not psutil.Process(pipeline.children["sinks"].pid).children())
    eventually(lambda: not files_of(exporter, running))
    exporter.ended(exporter.begin("customers", "csv"))
    eventually(lambda: (shown('exports_open{state="queued"}'), shown("exports_wait_seconds")) == (0, 0))
    assert shown('exports_total{state="failed"}') == 0
    assert exporter.state(waiting)["expires_at"] is exporter.state(running)["expires_at"] is None


def test_a_full_disk_is_told_and_the_next_export_goes_on(own_pipeline: Pipeline) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))"
    own_pipeline.start("sinks", patch=limit)
    own_pipeline.start("gateway")
    exporter = Exporter(own_pipeline)
    with psycopg.connect(own_pipeline.settings.database_url) as db:
        db.execute(_WIDE, [exporter.tenant])
    full = exporter.begin("products", "ndjson")
    assert exporter.ended(full, "failed")["reason"] == "the file store: File too large"
    assert not files_of(exporter, full)
    exporter.ended(exporter.begin("products", "ndjson", filters={"sku": "SKU-10"}))


def test_a_direct_producer_cannot_write_elsewhere(pipeline: Pipeline) -> None:
    settings = pipeline.settings
    producer = confluent_kafka.Producer(config(settings))
    folder = Path(settings.exports_url)
    for tenant in ("../beside", str(folder.parent / "beside")):
        record = {
            "tenant_id": tenant, "export_id": str(uuid.uuid4()), "entity": "orders", "format": "csv", "gzip": False,
            "requested_at": time.time_ns() // 1000, "filters": [],
        }  # fmt: skip
        value, headers = codec.encode(EXPORT_REQUESTED, record), [("ce_type", EXPORT_REQUESTED.encode())]
        producer.produce(settings.named(topics.EXPORTS), value, topics.partition_key(tenant), headers=headers)
    assert producer.flush(10) == 0
    query = "SELECT reason FROM dead_letters WHERE topic = %s"
    eventually(lambda: pipeline.sql(query, settings.named(topics.EXPORTS)) == [("invalid_value",)] * 2, within=40)
    assert not (folder.parent / "beside").exists()


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a folder in a bucket of an S3 server: JuiceFS's gateway, on files of this test."""
    juicefs = shutil.which("juicefs") or str(Path(sys.executable).with_name("juicefs"))
    meta, port = f"sqlite3://{tmp_path}/meta.db", free_port()
    secrets = {"MINIO_ROOT_USER": "tillstream", "MINIO_ROOT_PASSWORD": "of-the-tests", "HOME": str(tmp_path)}
    made = [juicefs, "format", "--storage", "file", "--bucket", f"{tmp_path}/blocks/", meta, "exports"]
    subprocess.run(made, check=True, capture_output=True, env=os.environ | secrets)
    serve = [juicefs, "gateway", "--no-usage-report", "--cache-dir", f"{tmp_path}/cache", meta, f"127.0.0.1:{port}"]
    for name, value in {
        "ENDPOINT_URL": f"http://127.0.0.1:{port}", "ACCESS_KEY_ID": "tillstream", "SECRET_ACCESS_KEY": "of-the-tests",
        "REGION": "us-east-1", "ALLOW_HTTP": "true",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"AWS_{name}", value)
    with (
        (tmp_path / "juicefs.log").open("wb") as log,
        subprocess.Popen(serve, stdout=log, stderr=log, env=os.environ | secrets) as server,
    ):
        try:
            eventually(lambda: _listens(port))
            yield "s3://exports/files"
        finally:
            server.terminate()


def _listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def test_files_may_lie_in_a_bucket(bucket: str, tmp_path: Path) -> None:
    with Pipeline(tmp_path, exports_url=bucket) as pipeline:
        pipeline.start("sinks", "gateway")
        exporter = Exporter(pipeline)
        with psycopg.connect(pipeline.settings.database_url) as db:
            fill(db, exporter.tenant, customers=20_000)
        export_id = exporter.begin("customers", "csv")
        state = exporter.ended(export_id)
        whole = exporter.get("customers", CSV).content
        answer = exporter.file(export_id)
        assert (answer.content, answer.headers["content-length"]) == (whole, str(len(whole)))
        part = exporter.file(export_id, Range="bytes=70000-1700000", If_Range=f'"{state["sha256"]}"')
        assert (part.status_code, part.content) == (206, whole[70_000:1_700_001])
        assert exporter.file(export_id, Range="bytes=-5").content == whole[-5:]
        with psycopg.connect(pipeline.settings.database_url) as db:
            db.execute("UPDATE exports SET expires_at = now() WHERE export_id = %s", [export_id])
        eventually(lambda: exporter.state(export_id)["state"] == "expired")
        eventually(lambda: not list(obstore.list(obstore.store.from_url(bucket)).collect()))
