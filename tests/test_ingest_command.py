"""`tillstream ingest` as a process, against the whole pipeline: nothing lost, nothing doubled, whatever ends it."""

import functools
import json
import os
import re
import secrets
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from pipeline import Pipeline, eventually

from producers import datasets, generate
from producers.chunks import Place
from producers.generate import Plan
from producers.resume import Fingerprint, ResumeFile, begun

TILLSTREAM = [sys.executable, "-c", "from deploy.cli import main; main()"]
ENTITIES = ("customers", "products", "orders")


class Merchant:
    """A folder of one tenant's files, and the command on it."""

    def __init__(self, pipeline: Pipeline, folder: Path, plan: Plan) -> None:
        self.pipeline, self.folder = pipeline, folder
        self.tenant, self.key = pipeline.tenant()
        home = folder / self.tenant
        home.mkdir(parents=True)
        for name in ENTITIES:
            (home / f"{name}.ndjson").write_bytes(b"".join(generate.FILES[f"{name}.ndjson"](plan, 0)))
        self.rows = plan.customers_per_tenant + plan.products_per_tenant + plan.orders_per_tenant
        self.orders = home / "orders.ndjson"

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        who = ("--data-dir", str(self.folder), "--tenant-id", self.tenant, "--api-key", self.key)
        command = [*TILLSTREAM, "ingest", *who, "--gateway-url", str(self.pipeline.http.base_url), *arguments]
        env = {**os.environ, **self.pipeline.settings.env()}
        return subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def run(self, *arguments: str, code: int = 0) -> tuple[str, str]:
        """What it printed, on stdout and stderr."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=120)
        assert process.returncode == code, out + err
        assert "Traceback" not in err
        return out, err

    def count(self, table: str) -> int:
        return int(self.pipeline.sql(f"SELECT count(*) FROM {table} WHERE tenant_id = %s", self.tenant)[0][0])

    @property
    def resume(self) -> Any:
        path = self.folder / ".tillstream-ingest.json"
        return json.loads(path.read_text()) if path.exists() else {"uploads": {}}


def puts(pipeline: Pipeline) -> int:
    """Chunks that the gateway has answered."""
    counted = re.findall(
        r'tillstream_request_seconds_count{route="put_chunk"} (.+)', pipeline.http.get("/metrics").text
    )
    return int(sum(map(float, counted)))


def test_a_folder_of_two_tenants_is_ingested_and_a_second_run_sends_nothing(pipeline: Pipeline, tmp_path: Path) -> None:
    plan = Plan(2, 300, 1_200)
    datasets.write(plan, tmp_path)
    made = {generate.tenant_id(index): pipeline.tenant() for index in range(2)}
    known = {old: new for old, (new, _) in made.items()}
    text = (tmp_path / "tenants.csv").read_text()
    for old, new in known.items():
        text = text.replace(old, new)
        (tmp_path / old).rename(tmp_path / new)
    (tmp_path / "tenants.csv").write_text(text)
    (tmp_path / "keys.csv").write_text("tenant_id,api_key\n" + "".join(f"{t},{k}\n" for t, k in made.values()))
    command = ("ingest", "--data-dir", str(tmp_path), "--gateway-url", str(pipeline.http.base_url))
    done = pipeline.cli(*command, "--wait", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert [(u["tenant_id"], u["entity"]) for u in said] == [(t, e) for t, _ in made.values() for e in ENTITIES]
    assert [u["rows"] for u in said] == [300, 300, 1_200] * 2
    assert all(u["applied"] == u["accepted"] == u["rows"] and u["state"] == "completed" for u in said)
    pipeline.drained()
    for tenant, _ in made.values():
        found = [pipeline.sql(f"SELECT count(*) FROM {e} WHERE tenant_id = %s", tenant)[0][0] for e in ENTITIES]
        assert found == [300, 300, 1_200]
    before = puts(pipeline)
    again = pipeline.cli(*command, "--wait")
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("was sent before; nothing to send") == 6
    assert "accepted 3,600, rejected 0" in again.stdout
    assert puts(pipeline) == before


def test_with_the_admin_token_tenants_and_keys_are_made_once(pipeline: Pipeline, tmp_path: Path) -> None:
    tenant = f"made-{secrets.token_hex(4)}"
    (tmp_path / tenant).mkdir()
    (tmp_path / tenant / "orders.ndjson").write_bytes(b"".join(generate.orders(Plan(1, 5, 20), 0)))
    (tmp_path / "tenants.csv").write_text(f"tenant_id,name,currency\n{tenant},Möbel,CHF\n", encoding="utf-8")
    admin = {"Authorization": f"Bearer {pipeline.settings.admin_token}"}
    path = f"/api/v1/admin/tenants/{tenant}"

    def run(*arguments: str) -> list[str]:
        """Ingest; the ids of the tenant's keys that have not ended."""
        where = ("--gateway-url", str(pipeline.http.base_url))
        done = pipeline.cli("ingest", "--data-dir", str(tmp_path), *where, "--wait", *arguments)
        assert done.returncode == 0, done.stderr
        known = pipeline.http.get(path, headers=admin).json()
        assert (known["name"], known["currency"]) == ("Möbel", "CHF")
        return [key["key_id"] for key in known["keys"] if not key["expires_at"]]

    [first] = run()
    assert run("--restart") == [first]
    assert pipeline.http.delete(f"{path}/keys/{first}", headers=admin).status_code == 200
    [second] = run("--restart")
    assert second != first
    assert pipeline.sql("SELECT count(*) FROM orders WHERE tenant_id = %s", tenant) == [(20,)]


def test_killed_again_and_again_it_goes_on_and_doubles_nothing(pipeline: Pipeline, tmp_path: Path) -> None:
    shop = Merchant(pipeline, tmp_path, Plan(1, 2_000, 60_000))
    before = puts(pipeline)
    kills = 0
    for chunks in (1, 2, 20, 45):
        process = shop.start("--concurrency", "2")
        eventually(functools.partial(lambda most: puts(pipeline) - before >= most, chunks))
        kills += process.poll() is None
        process.kill()
        process.communicate()
    assert kills == 4
    assert 0 < puts(pipeline) - before < 77
    out, _ = shop.run("--wait", "--json")
    said = json.loads(out)
    assert sum(u["accepted"] for u in said) == sum(u["applied"] for u in said) == shop.rows == 77_000
    assert stat.S_IMODE((tmp_path / ".tillstream-ingest.json").stat().st_mode) == 0o600
    pipeline.drained()
    assert [shop.count(table) for table in ENTITIES] == [15_000, 2_000, 60_000]
    assert pipeline.sql("SELECT count(*), sum(revision) FROM orders WHERE tenant_id = %s", shop.tenant) == [(60_000, 0)]
    assert 77 <= puts(pipeline) - before < 130
    # Not even a chunk of the first moments went under a second upload.
    applied = pipeline.sql(
        "SELECT sum(applied), count(DISTINCT upload_id) FROM ledger WHERE tenant_id = %s", shop.tenant
    )
    assert applied == [(77_000, 3)]


def test_a_gateway_that_restarts_in_the_middle_costs_nothing(own_pipeline: Pipeline, tmp_path: Path) -> None:
    own_pipeline.start("streams", "sinks", "gateway")
    shop = Merchant(own_pipeline, tmp_path / "data", Plan(1, 500, 30_000))
    process = shop.start("--wait", "--json")
    eventually(lambda: puts(own_pipeline) > 3)
    own_pipeline.kill("gateway")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err
    assert "waiting: " in err
    assert sum(upload["accepted"] for upload in json.loads(out)) == shop.rows
    own_pipeline.drained()
    assert [shop.count(table) for table in ENTITIES] == [7_500, 500, 30_000]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_by_a_signal_it_saves_and_says_how_to_go_on(
    pipeline: Pipeline, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    shop = Merchant(pipeline, tmp_path, Plan(1, 100, 40_000))
    before = puts(pipeline)
    process = shop.start("--concurrency", "1")
    eventually(lambda: puts(pipeline) - before > 5)
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert process.returncode == code, err
    assert "Run the same command again" in err
    assert "Traceback" not in err
    first = puts(pipeline) - before
    acknowledged = sum(u["place"]["number"] + len(u["beyond"]) for u in shop.resume["uploads"].values())
    assert first - 2 <= acknowledged <= first
    shop.run("--wait")
    assert 51 <= puts(pipeline) - before <= 51 + first - acknowledged
    assert shop.count("orders") == 40_000


def test_bad_rows_are_shown_with_the_files_line_numbers(pipeline: Pipeline, tmp_path: Path) -> None:
    shop = Merchant(pipeline, tmp_path, Plan(1, 10, 3_000))
    lines = shop.orders.read_bytes().splitlines(keepends=True)
    lines.insert(7, b"\r\n")
    for place, (bad, _) in zip((1_500, 2_400, 2_990), generate.bad_rows(0), strict=False):
        lines[place - 1] = bad
    shop.orders.write_bytes(b"\xef\xbb\xbf" + b"".join(lines))
    out, err = shop.run("--wait", "--verbose", code=1)
    assert f"{shop.tenant}/orders.ndjson:1500: /total_amount: negative_amount" in out
    assert f"{shop.tenant}/orders.ndjson:2400: /total_amount: too_many_decimals" in out
    assert f"{shop.tenant}/orders.ndjson:2990: /order_date: " in out
    assert "accepted 3,757, rejected 3" in out
    assert "partially completed" in out
    assert "tillstream uploads errors" in err
    assert shop.count("orders") == 2_997
    kept = json.loads((tmp_path / ".tillstream-ingest.json").read_text())["uploads"][f"{shop.tenant}/orders"]
    path = f"/api/v1/tenants/{shop.tenant}/uploads/{kept['token']}/errors"
    assert len(pipeline.http.get(path, headers={"X-API-Key": shop.key}).text.splitlines()) == 3


def test_rows_that_are_refused_later_are_shown_too(pipeline: Pipeline, tmp_path: Path) -> None:
    shop = Merchant(pipeline, tmp_path, Plan(1, 10, 2_500))
    lines = shop.orders.read_bytes().splitlines(keepends=True)
    lines[1_999] = re.sub(rb'"total_amount":"[0-9.]+"', b'"total_amount":"0.01"', lines[1_999])
    lines[2_100] = b"{}\n"
    shop.orders.write_bytes(b"".join(lines))
    out, err = shop.run("--wait", "--verbose", code=1)
    assert f"{shop.tenant}/orders.ndjson:2000: /total_amount: total_mismatch, the items add up to" in out
    assert out.count("orders.ndjson:2101:") == 5
    assert "refused later" in out
    assert f"/{shop.tenant}/orders.ndjson: tillstream uploads errors " in err
    assert shop.count("orders") == 2_498


def test_ten_errors_are_shown_and_the_others_counted(pipeline: Pipeline, tmp_path: Path) -> None:
    shop = Merchant(pipeline, tmp_path, Plan(1, 1, 1))
    shop.orders.write_bytes(b"{}\n" * 4)
    out, err = shop.run("--entity", "orders", code=1)
    assert out.count("orders.ndjson:") == 10
    assert "and 10 more errors; --verbose shows them all" in err
    assert "accepted 0, rejected 4" in out


def test_a_dry_run_checks_every_row_and_publishes_nothing(pipeline: Pipeline, tmp_path: Path) -> None:
    shop = Merchant(pipeline, tmp_path, Plan(1, 50, 1_500))
    with shop.orders.open("ab") as file:
        file.write(b'{"external_order_id":1}\n')
    out, _ = shop.run("--dry-run", code=1)
    assert "orders.ndjson:1501: " in out
    assert "accepted 1,925, rejected 1" in out
    assert not (tmp_path / ".tillstream-ingest.json").exists()
    pipeline.drained()
    assert shop.count("ledger") == 0


def test_csv_from_excel(pipeline: Pipeline, tmp_path: Path) -> None:
    tenant, key = pipeline.tenant()
    file = tmp_path / "Produkte März.csv"
    head = "product_id;sku;name;price;active;Lagerort\r\n"
    rows = "".join(
        f'P-{n};;"Käse; ""mild"" {n}";{n},95;{"WAHR" if n % 2 else "FALSCH"};Köln\r\n' for n in range(1, 1_501)
    )
    file.write_bytes((head + rows + "P-X;;ohne Preis;;;\r\n").encode("cp1252"))
    command = ("ingest", str(file), "--entity", "products", "--tenant-id", tenant, "--wait", "--verbose")
    where = ("--gateway-url", str(pipeline.http.base_url), "--api-key", key)
    done = pipeline.cli(*command, *where)
    assert done.returncode == 1, done.stderr
    assert "is not UTF-8: read as cp1252" in done.stderr
    assert "März.csv:1502: /price: " in done.stdout
    found = pipeline.sql(
        "SELECT name, price::text, active, attributes->>'Lagerort' FROM products"
        " WHERE tenant_id = %s AND product_id = 'P-1500'",
        tenant,
    )
    assert found == [('Käse; "mild" 1500', "1500.95", False, "Köln")]
    assert (tmp_path / ".Produkte März.csv.tillstream-ingest.json").exists()


def test_a_changed_file_needs_restart_and_a_cancelled_upload_begins_anew(pipeline: Pipeline, tmp_path: Path) -> None:
    shop = Merchant(pipeline, tmp_path, Plan(1, 10, 40))
    shop.run("--wait")
    with shop.orders.open("ab") as file:
        file.writelines(generate.orders(Plan(1, 10, 40), 0, 40, 5))
    _, err = shop.run(code=2)
    assert "has changed since it was sent" in err
    assert "--restart" in err
    shop.run("--wait", "--restart", "--entity", "orders")
    assert shop.count("orders") == 45
    token = shop.resume["uploads"][f"{shop.tenant}/orders"]["token"]
    path = f"/api/v1/tenants/{shop.tenant}/uploads/{token}"
    resume = tmp_path / ".tillstream-ingest.json"
    kept = ResumeFile(resume)
    progress = kept.contents.uploads[f"{shop.tenant}/orders"]
    opened = pipeline.http.post(
        f"/api/v1/tenants/{shop.tenant}/uploads", json={"entity": "orders"}, headers={"X-API-Key": shop.key}
    ).json()
    assert path
    cancelled = f"/api/v1/tenants/{shop.tenant}/uploads/{opened['token']}"
    assert pipeline.http.delete(cancelled, headers={"X-API-Key": shop.key}).status_code == 202
    progress.token, progress.completed = opened["token"], False
    kept.save()
    pipeline.drained()
    _, err = shop.run("--wait")
    assert "its upload is cancelled: it is sent anew" in err
    assert shop.count("orders") == 45
    progress.token, progress.key = "made-elsewhere", progress.key + "x"
    kept.save()
    _, err = shop.run("--wait")
    assert "this gateway does not know its upload: it is sent anew" in err


def test_a_chunk_that_only_the_resume_file_has_is_sent_again(pipeline: Pipeline, tmp_path: Path) -> None:
    shop = Merchant(pipeline, tmp_path, Plan(1, 10, 5_000))
    path = f"/api/v1/tenants/{shop.tenant}/uploads"
    opened = pipeline.http.post(path, json={"entity": "orders"}, headers={"X-API-Key": shop.key}).json()
    progress = begun(Fingerprint.of(shop.orders), Place())
    progress.token, progress.beyond, progress.accepted = opened["token"], [5], 1_000
    kept = ResumeFile(tmp_path / ".tillstream-ingest.json")
    kept.contents.uploads[f"{shop.tenant}/orders"] = progress
    kept.save()
    _, err = shop.run("--wait", "--entity", "orders")
    assert "chunk 5 is missing: it is sent again" in err
    assert shop.count("orders") == 5_000
    edited = kept.path.read_text().replace('"accepted":', '"accepted":1')
    kept.path.write_text(edited)
    _, err = shop.run("--wait", code=2)
    assert "changed by hand: it is not believed. --restart" in " ".join(err.split())


def test_it_gives_up_with_75_and_the_next_run_goes_on(pipeline: Pipeline, tmp_path: Path) -> None:
    shop = Merchant(pipeline, tmp_path, Plan(1, 10, 40))
    started = time.monotonic()
    _, err = shop.run("--gateway-url", "http://127.0.0.1:9", "--patience", "2", code=75)
    assert 2 < time.monotonic() - started < 30
    assert "no progress for 2 s" in err
    assert "Run the same command again" in err
    shop.run("--wait")
    assert shop.count("orders") == 40


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "give one FILE, or a folder"),
        (["--data-dir", "{empty}"], "has no tenants.csv"),
        (["--data-dir", "{empty}", "--tenant-id", "acme"], "has none of customers.ndjson, products.ndjson"),
        (["{file}"], "one FILE needs --tenant-id and --entity"),
        (["{file}", "--tenant-id", "acme", "--entity", "invoices"], "--entity takes customers, products, orders"),
        (["{file}", "--tenant-id", "acme", "--entity", "orders", "--gateway-url", "nowhere:1"], "no address"),
        (["{file}", "--tenant-id", "acme", "--entity", "orders", "--api-key", "wrong"], "invalid_key"),
        (["{file}.none", "--tenant-id", "acme", "--entity", "orders"], "there is no file"),
        (["-", "--tenant-id", "acme", "--entity", "orders"], "- is no file that can be read twice"),
        (["--data-dir", "{empty}", "--api-key", "x"], "no tenants.csv"),
    ],
)
def test_wrong_usage_gets_a_sentence_and_2(pipeline: Pipeline, tmp_path: Path, arguments: list[str], says: str) -> None:
    empty, file = tmp_path / "empty", tmp_path / "x.ndjson"
    empty.mkdir()
    file.write_bytes(b"{}\n")
    given = [argument.format(empty=empty, file=file) for argument in arguments]
    where = [] if "--gateway-url" in given else ["--gateway-url", str(pipeline.http.base_url)]
    done = pipeline.cli("ingest", *given, *where)
    assert done.returncode == 2, done.stdout + done.stderr
    assert says in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
