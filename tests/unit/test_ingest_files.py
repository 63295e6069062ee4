"""Which files of a folder are sent, and what is said of those that are not there any more."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from deploy import ingest_files
from deploy.cli import app
from producers.chunks import Place
from producers.resume import Fingerprint, begun
from schemas.errors import Misconfigured, Rejected


def test_a_file_that_was_sent_and_is_gone_is_named(tmp_path: Path) -> None:
    (tmp_path / "tenants.csv").write_bytes("sep=;\r\ntenant_id;name\r\nacme;Ærø\r\n".encode("cp1252"))
    (tmp_path / "acme").mkdir()
    sent = {}
    for entity in ("customers", "products", "orders"):
        path = tmp_path / "acme" / f"{entity}.ndjson"
        path.write_text("{}\n")
        sent[f"acme/{entity}"] = begun(Fingerprint.of(path), Place())
        sent[f"acme/{entity}"].token = "" if entity == "orders" else "t"
    sent["acme/customers"].completed = True
    for path in (tmp_path / "acme").iterdir():
        if path.name != "products.ndjson":
            path.unlink()
    jobs = ingest_files.of_folder(tmp_path, None, None)
    assert [(job.entity, job.name) for job in jobs] == [("products", "Ærø")]
    said = "acme/customers: customers.ndjson was sent before and is not there any more; what was sent of it stays"
    assert list(ingest_files.gone(jobs, sent, None, None)) == [said]
    assert list(ingest_files.gone(jobs, sent, "acme", "products")) == []
    assert list(ingest_files.gone([], sent, "other", None)) == []
    both = list(ingest_files.gone([], sent, "acme", None))
    assert both[1].startswith("acme/products: products.ndjson was sent in part before")


def test_keys_are_read_as_spreadsheets_write_them(tmp_path: Path) -> None:
    path = tmp_path / "keys.csv"
    path.write_bytes(b"\xef\xbb\xbftenant_id;api_key\r\nacme;ts_1\r\n")
    assert ingest_files.read_csv(path, "tenant_id", "api_key") == [{"tenant_id": "acme", "api_key": "ts_1"}]
    path.write_bytes("tenant_id,api_key\nacme,é\n".encode() + b"b,\xe9\n")
    with pytest.raises(Rejected, match="line 3 has 0xE9"):
        ingest_files.read_csv(path, "tenant_id")


def test_a_folder_or_file_that_cannot_be_made_gets_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "tenants.csv").write_text("tenant_id\nacme\n")
    load = ["tenants", "load", str(tmp_path / "tenants.csv"), "--keys", "/nonexistent/k.csv"]
    told = CliRunner().invoke(app, load).exception
    assert isinstance(told, Misconfigured)
    assert str(told) == "--keys: /nonexistent/k.csv cannot be made (No such file or directory); nothing was published"
    told = CliRunner().invoke(app, ["up", "--data-dir", "/proc/foo"]).exception
    assert isinstance(told, Misconfigured)
    assert str(told).startswith("/proc/foo cannot be made or written (No such file or directory): choose another")
