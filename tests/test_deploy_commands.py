"""The commands of the files for Docker and Compose, run as they are written there, outside a container."""

import os
import re
import secrets
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import psycopg
import yaml
from pipeline import eventually
from psycopg.conninfo import conninfo_to_dict

from deploy.broker import HOST, free_port
from deploy.stack import create_database
from deploy.supervisor import Child, Supervisor

ROOT = Path(__file__).parents[1]
COMPOSE = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
SETUP = COMPOSE["services"]["setup"]


def environment(folder: Path, prefix: str, database: str) -> dict[str, str]:
    """What Compose sets, with the session's stores in the place of its own, and the console script on the PATH."""
    script = folder / "bin" / "tillstream"
    script.parent.mkdir()
    script.write_text(f"#!/bin/sh\nexec {sys.executable} -c 'from deploy.cli import main; main()' \"$@\"\n")
    script.chmod(0o755)
    server = conninfo_to_dict(os.environ["DATABASE_URL"])
    given: dict[str, Any] = SETUP["environment"]
    filled = {name: re.sub(r"\$\{\w+:\?\}", "f" * 40, value) for name, value in given.items()}
    filled |= {name: "" for name, value in given.items() if value.endswith(":-}")}
    filled["KAFKA_BOOTSTRAP_SERVERS"] = os.environ["KAFKA_BOOTSTRAP_SERVERS"]
    filled["DATABASE_URL"] = database
    reader = filled["TILLSTREAM_READER_DATABASE_URL"].replace("@postgres:5432/tillstream", "@{host}:{port}/{dbname}")
    at = {**server, "dbname": database.rpartition("/")[2]}
    # Roles belong to the whole server: a login of this test's own.
    filled["TILLSTREAM_READER_DATABASE_URL"] = reader.format(**at).replace("tillstream_gateway", f"reader_{prefix}")
    return {
        **os.environ,
        **filled,
        "PATH": f"{script.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "TILLSTREAM_PREFIX": f"{prefix}.",
    }


def test_the_roles_of_compose_come_up_after_its_setup_and_are_healthy(tmp_path: Path) -> None:
    prefix = f"c{secrets.token_hex(4)}"
    database = create_database(os.environ["DATABASE_URL"], f"t_{prefix}")
    env = environment(tmp_path, prefix, database)
    try:
        for _ in range(2):  # and again, as at every release
            done = subprocess.run(
                [*SETUP["entrypoint"], *SETUP["command"]], env=env, cwd=tmp_path, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr
        assert "may log in" in done.stdout
        with Supervisor() as supervisor:
            for role in ("gateway", "streams", "sinks"):
                port = str(free_port())
                mine = {**env, "TILLSTREAM_GATEWAY_PORT": port if role == "gateway" else "1"}
                mine["TILLSTREAM_METRICS_PORT"] = "0" if role == "gateway" else port
                mine["TILLSTREAM_STREAMS_DATA_DIR"] = str(tmp_path)
                command = ["tillstream", *COMPOSE["services"][role]["command"]]
                assert healthy(mine) == 1
                supervisor.add(Child(role, lambda command=command: command, tmp_path / f"{role}.log", env=mine))
                eventually(lambda mine=mine: healthy(mine) == 0, within=40)
                if role == "gateway":
                    assert httpx.get(f"http://{HOST}:{port}/console/").status_code == 200
                    first_tenant(f"http://{HOST}:{port}", mine)
    finally:
        with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as db:
            db.execute(f'DROP DATABASE "t_{prefix}" WITH (FORCE)'.encode())
            db.execute(f'DROP ROLE IF EXISTS "reader_{prefix}"'.encode())


def first_tenant(gateway_url: str, env: dict[str, str]) -> None:
    """What is to be typed after all is up, in Compose and in Kubernetes, gives a key that the gateway takes."""
    told = {
        command
        for file in ("README.md", "deploy/compose.yaml", "deploy/kubernetes/kustomization.yaml")
        for command in re.findall(r"exec (?:gateway|deployment/gateway --) (.+)$", (ROOT / file).read_text(), re.M)
    }
    [command] = told
    done = subprocess.run(shlex.split(command), env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [key] = re.findall(r"ts_\S+", done.stdout)
    order = {"external_order_id": "A-1", "total_amount": "1", "currency": "EUR", "order_status": "paid"}
    eventually(
        lambda: (
            httpx.post(
                f"{gateway_url}/api/v1/tenants/acme/ingest/orders",
                json=order | {"order_date": "2026-01-31T12:00:00Z"},
                headers={"X-API-Key": key},
            ).status_code
            == 202
        )
    )


def healthy(env: dict[str, str]) -> int:
    """Exit code of what the image's HEALTHCHECK runs."""
    asked = re.search(r'^HEALTHCHECK .* CMD \["python", (.*)\]$', (ROOT / "deploy" / "Dockerfile").read_text(), re.M)
    assert asked is not None
    arguments = [argument.strip().strip('"') for argument in asked[1].split(",")]
    return subprocess.run([sys.executable, *arguments], env=env, cwd=ROOT).returncode
