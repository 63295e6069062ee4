"""The commands, run as processes."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
import pytest
from pipeline import Pipeline, eventually
from test_end_to_end import order

from deploy.broker import free_port

TILLSTREAM = [sys.executable, "-c", "from deploy.cli import main; main()"]
ALONE = {name: value for name, value in os.environ.items() if name not in ("KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL")}


def test_a_key_made_on_the_command_line_works_until_it_is_revoked(pipeline: Pipeline) -> None:
    made = json.loads(pipeline.cli("tenants", "add", "cli-shop", "--json").stdout)
    tenant, key = made["tenant_id"], made["api_key"]
    eventually(lambda: pipeline.post(tenant, key, "orders", order(1)).status_code == 202, within=10)
    second = json.loads(pipeline.cli("tenants", "add", "cli-shop", "--json").stdout)
    assert pipeline.cli("tenants", "revoke", tenant, made["key_id"]).returncode == 0
    eventually(lambda: pipeline.post(tenant, key, "orders", order(1)).status_code == 401, within=10)
    assert pipeline.post(tenant, key, "orders", order(1)).json()["code"] == "revoked_key"
    assert pipeline.post(tenant, second["api_key"], "orders", order(2)).status_code == 202
    listed = pipeline.cli("tenants", "list").stdout
    assert f"{made['key_id']} (revoked)" in " ".join(listed.split())
    assert key not in listed


def test_what_goes_to_a_pipe_is_not_cut(pipeline: Pipeline) -> None:
    tenant, name = "a-shop-with-a-long-id-" + "x" * 70, "[b]Schuhhaus[/b] " + "Müller " * 10
    assert pipeline.cli("tenants", "add", tenant, "--name", name.strip(), "--json").returncode == 0
    key = json.loads(pipeline.cli("tenants", "rotate", tenant, "--json", columns=80).stdout)
    eventually(lambda: pipeline.post(tenant, key["api_key"], "orders", order(1)).status_code == 202, within=5)
    pipeline.drained()
    listed = next(
        line for line in pipeline.cli("tenants", "list", columns=80).stdout.splitlines() if line.startswith(tenant)
    )
    assert name.strip() in listed
    assert key["key_id"] in listed
    audited = pipeline.cli("audit", columns=80).stdout.splitlines()
    assert audited[0].split() == ["tenant", "accepted", "applied", "superseded", "duplicate", "conflict", "rejected",
                                  "in", "flight"]  # fmt: skip
    assert f"{tenant} 1 1 0 0 0 0 0" in [" ".join(line.split()) for line in audited]


def test_what_sinks_have_passed_without_a_line_is_lost_and_not_in_flight(pipeline: Pipeline) -> None:
    tenant, key = pipeline.tenant()
    assert pipeline.post(tenant, key, "orders", order(1) + order(2)).status_code == 202
    pipeline.drained()
    put_away = "UPDATE ledger SET partition = partition + %s WHERE tenant_id = %s RETURNING log_offset"
    [(offset,)] = pipeline.sql(put_away, 1_000, tenant)
    try:
        said = eventually(lambda: (done := pipeline.cli("audit")).returncode and done.stdout)  # streams have committed
        tallies = json.loads(pipeline.cli("audit", "--json").stdout)["tenants"]
    finally:
        pipeline.sql(put_away, -1_000, tenant)
    assert f"@{offset}: 2 rows of '{tenant}'; sinks have passed it" in said
    assert (tallies[tenant]["lost"], tallies[tenant]["in_flight"]) == (2, 0)


def test_a_file_from_excel_is_ingested_and_audited(pipeline: Pipeline, tmp_path: Path) -> None:
    tenant, key = pipeline.tenant()
    file = tmp_path / "orders.ndjson"
    file.write_bytes(b"\xef\xbb\xbf" + b"".join(order(n).replace(b"\n", b"\r\n") for n in range(2_500)) + b"\r\n")
    url = str(pipeline.http.base_url)
    sent = pipeline.cli(
        "ingest", str(file), "--entity", "orders", "--tenant-id", tenant, "--api-key", key, "--gateway-url", url
    )
    assert (sent.returncode, sent.stdout.strip()) == (0, "accepted 2,500, rejected 0"), sent.stderr
    audited = pipeline.cli("audit", "--wait", "20", "--json")
    assert audited.returncode == 0, audited.stdout
    assert json.loads(audited.stdout)["tenants"][tenant]["applied"] == 2_500


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["tenants", "add", "no spaces"], "letters, digits and hyphens"),
        (["tenants", "add", "shop", "--currency", "euro"], "ISO 4217"),
        (["tenants", "revoke", "nobody", "k"], "there is no tenant nobody"),
        (["generate", "x", "--preset", "huge"], "--preset takes small, medium, large"),
    ],
)
def test_a_wrong_argument_gets_a_sentence(pipeline: Pipeline, arguments: list[str], says: str) -> None:
    done = pipeline.cli(*arguments)
    assert done.returncode == 2
    assert says in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [["audit"], ["tenants", "list"], ["ingest", "--data-dir", "."]])
def test_where_no_stack_runs_it_is_said_at_once(tmp_path: Path, arguments: list[str]) -> None:
    done = subprocess.run(
        [*TILLSTREAM, *arguments, "--stack-dir", "nowhere"],
        env=ALONE | {"PYTHONPATH": str(Path(__file__).parents[1])},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 2
    assert "tillstream up --data-dir nowhere" in done.stderr or arguments[0] == "ingest"


@pytest.mark.parametrize("role", ["streams", "sinks", "gateway"])
def test_a_role_without_its_topics_says_what_to_do(pipeline: Pipeline, role: str) -> None:
    env = {**os.environ, **pipeline.settings.env(), "TILLSTREAM_PREFIX": "nowhere."}
    done = subprocess.run([sys.executable, "-m", role], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode in (1, 2)
    assert "nowhere.ingestion is missing" in done.stderr
    assert "tillstream topics ensure" in done.stderr


@pytest.mark.parametrize("role", ["streams", "sinks"])
def test_a_worker_without_kafka_ends_with_try_again(role: str) -> None:
    env = ALONE | {"KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}"}
    done = subprocess.run([sys.executable, "-m", role], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 75, done.stderr
    assert "Traceback" not in done.stderr


@contextmanager
def up(data_dir: Path) -> Iterator[dict[str, Any]]:
    """A running `tillstream up`; at the end it must have stopped all it started."""
    command = [*TILLSTREAM, "up", "--data-dir", str(data_dir)]
    hear = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # who runs the tests in the background ignores it
    process = subprocess.Popen(command, env=ALONE, stdout=subprocess.PIPE, preexec_fn=hear)
    try:
        eventually(lambda: (data_dir / "stack.json").exists() or process.poll() is not None, within=60)
        assert process.poll() is None
        stack = json.loads((data_dir / "stack.json").read_text())
        targets = json.loads((data_dir / "prometheus" / "targets.json").read_text())
        assert {f"http://{one['targets'][0]}/metrics" for one in targets} == set(stack["metrics_urls"].values())
        yield stack
    finally:
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    # An ended process may stay as a zombie where nothing reaps orphans, as in some containers.
    assert [child for child in family if child.is_running() and child.status() != psutil.STATUS_ZOMBIE] == []
    assert not (data_dir / "stack.json").exists()


def test_up_survives_a_restart_with_its_data_and_restarts_a_child(tmp_path: Path) -> None:
    def applied(url: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(url) as db:
            return db.execute("SELECT sum(applied), sum(duplicate) FROM ledger").fetchall()

    def send(url: str, key: str) -> int:
        headers = {"X-API-Key": key, "Idempotency-Key": "the-same"}
        try:
            return httpx.post(f"{url}/api/v1/tenants/acme/ingest/orders", content=order(1), headers=headers).status_code
        except httpx.TransportError:
            return 0

    with up(tmp_path) as stack:
        assert stat.S_IMODE((tmp_path / "stack.json").stat().st_mode) == 0o600
        second = [*TILLSTREAM, "up", "--data-dir", str(tmp_path)]
        again = subprocess.run(second, env=ALONE, capture_output=True, text=True)
        assert again.returncode == 2
        assert "another stack runs" in again.stderr
        made = subprocess.run(
            [*TILLSTREAM, "tenants", "add", "acme", "--json", "--data-dir", str(tmp_path)],
            env=ALONE, capture_output=True, text=True, check=True,
        )  # fmt: skip
        key = json.loads(made.stdout)["api_key"]
        eventually(lambda: send(stack["gateway_url"], key) == 202)
        eventually(lambda: applied(stack["database_url"]) == [(1, 0)])
        psutil.Process(stack["pids"]["gateway"]).kill()
        eventually(lambda: send(stack["gateway_url"], key) == 202)
        eventually(lambda: json.loads((tmp_path / "stack.json").read_text())["pids"] != stack["pids"])
    with up(tmp_path) as stack:
        eventually(lambda: send(stack["gateway_url"], key) == 202)
        time.sleep(1)
        assert applied(stack["database_url"]) == [(1, 0)]  # the gateway knew both times: the first answer again


def test_the_demo_accounts_for_every_row() -> None:
    done = subprocess.run(
        [*TILLSTREAM, "demo", "--orders", "1500", "--products", "100"], env=ALONE, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The conservation law holds" in done.stdout
    assert "duplicates dropped" in done.stdout


def test_a_benchmark_prints_its_figures_beside_their_limit_and_target() -> None:
    done = subprocess.run(
        [*TILLSTREAM, "bench", "--only", "gateway", "--rows", "5000"], env=ALONE, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rows/s" in done.stdout
    assert "limit" in done.stdout
    assert "met" in done.stdout
    unknown = subprocess.run([*TILLSTREAM, "bench", "--only", "luck"], env=ALONE, capture_output=True, text=True)
    assert unknown.returncode == 2
    assert "--only takes ingest" in " ".join(unknown.stderr.split())
