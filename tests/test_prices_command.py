"""`tillstream prices`, run as processes against a real gateway."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pipeline import Pipeline, eventually
from test_price_http import Trader, to
from typer.testing import CliRunner

from deploy.cli import app


class Clerk(Trader):
    """A tenant with prices, at its command line."""

    def run(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.pipeline.cli("prices", command, *arguments, *self.access)

    @property
    def access(self) -> tuple[str, ...]:
        url = str(self.pipeline.http.base_url)
        return "--tenant-id", self.tenant, "--api-key", self.key, "--gateway-url", url

    def lines(self, command: str, *arguments: str, code: int = 0) -> list[dict[str, Any]]:
        done = self.run(command, *arguments, "--json")
        assert done.returncode == code, (done.stdout, done.stderr)
        return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def clerk(pipeline: Pipeline) -> Iterator[Clerk]:
    clerk = Clerk(pipeline)
    yield clerk
    pipeline.drained()


def test_a_price_is_changed_and_shown_with_its_verdicts(clerk: Clerk) -> None:
    done = clerk.run("change", "a/b", "20.00", "--currency", "EUR", "--metadata", '{"by": "x"}')
    assert (done.returncode, done.stdout) == (0, "a/b accepted: none -> 20.00 EUR\n"), done.stderr
    [verdict] = clerk.lines("change", "a/b", "2", "--old-price", "20.00")
    assert (verdict["status"], verdict["price_after"], verdict["findings"][0]["name"]) == (
        "anomaly", "2.00", "decimal_shift",
    )  # fmt: skip
    [verdict] = clerk.lines("change", "a/b", "0", code=1)
    assert verdict["status"] == "rejected"
    refused = clerk.run("change", "a/b", "1.555")
    assert (refused.returncode, "too_many_decimals" in refused.stderr) == (1, True)
    assert clerk.run("change", "a/b", "1", "--metadata", "[]").returncode == 2
    [price] = eventually(lambda: (found := clerk.lines("show", "a/b"))[0]["version"] == 2 and found)
    assert [change["status"] for change in price["changes"]] == ["rejected", "anomaly", "accepted"]
    shown = clerk.run("show", "a/b").stdout
    assert "a/b: 2.00 EUR since " in shown
    assert "decimal_shift" in shown
    assert clerk.run("show", "nothing").returncode == 2
    assert clerk.pipeline.cli("prices", "show", "a/b", "--tenant-id", clerk.tenant).returncode == 2


def test_a_file_of_prices_is_sent_in_order_and_again_doubles_nothing(clerk: Clerk, tmp_path: Path) -> None:
    table = tmp_path / "prices.csv"
    rows = [f"P-{n};{10 + n % 5},50;EUR" for n in range(1_500)]
    table.write_text("\n".join(["product_id;new_price;currency", *rows, "P-0;1,05;EUR", "P-1;x;EUR", "P-2;0;EUR"]))
    told = clerk.lines("send", str(table), code=1)
    *verdicts, counts = told
    assert (counts["taken"], counts["refused"], counts["accepted"]) == (1_502, 1, 1_500)
    assert (counts["anomaly"], counts["rejected"], counts["duplicate"]) == (1, 1, 0)
    assert [line["product_id"] for line in verdicts] == [*(f"P-{n}" for n in range(1_500)), "P-0", "P-2"]
    again = clerk.run("send", str(table))
    assert again.returncode == 1
    assert again.stdout.startswith("taken 1,502, refused 1, accepted 1,500, anomaly 1, held 0, rejected 1,")
    assert "prices.csv line 1503: /new_price" in again.stderr
    assert "prices.csv line 1502: P-0 anomaly: 10.50 -> 1.05 EUR" in again.stderr
    good = tmp_path / "good.ndjson"
    good.write_text(json.dumps(to("10.60", "P-0")) + "\n")
    assert clerk.run("send", str(good)).returncode == 0
    assert clerk.price("P-0")["version"] in (2, 3)


def test_limits_and_the_policy_are_shown_and_set(clerk: Clerk) -> None:
    assert clerk.lines("limits", "P-1", "--floor", "8.50", "--ceiling", "12") == [
        {"product_id": "P-1", "floor": "8.50", "ceiling": "12"}
    ]
    eventually(lambda: clerk.price("P-1").get("ceiling") == "12.00")
    assert clerk.run("limits", "P-1", "--floor", "9").stdout == "P-1, floor 9, ceiling 12.00\n"
    eventually(lambda: clerk.price("P-1")["floor"] == "9.00")
    assert clerk.run("limits", "P-1", "--ceiling", "none").stdout == "P-1, floor 9.00\n"
    eventually(lambda: clerk.run("limits", "P-1").stdout == "P-1, floor 9.00\n")
    assert clerk.run("limits", "P-1", "--floor", "many").returncode == 2
    policy = ("prices", "policy", "--tenant-id", clerk.tenant)
    before = json.loads(clerk.pipeline.cli(*policy, "--json").stdout)
    assert (before["max_decrease_percent"], before["actions"]["bounds"]) == (None, "flag")
    changed = clerk.pipeline.cli(*policy, "--set", "max_decrease_percent=5", "--action", "bounds=reject", "--json")
    assert json.loads(changed.stdout) == before | {
        "max_decrease_percent": 5, "actions": before["actions"] | {"bounds": "reject"},
    }  # fmt: skip
    assert clerk.lines("change", "P-2", "10") != []
    [verdict] = clerk.lines("change", "P-2", "9", code=1)
    assert (verdict["status"], verdict["findings"][0]["name"]) == ("rejected", "bounds")
    clerk.pipeline.cli(*policy, "--set", "max_decrease_percent=default", "--action", "bounds=default")
    assert json.loads(clerk.pipeline.cli(*policy, "--json").stdout) == before
    for wrong in (("--set", "colour=1"), ("--set", "jump_factor=many"), ("--set", "jump_factor=0"),
                  ("--action", "jump=shout"), ("--action", "luck=hold")):  # fmt: skip
        assert clerk.pipeline.cli(*policy, *wrong).returncode == 2, wrong
    assert clerk.pipeline.cli("prices", "policy", "--tenant-id", "nobody").returncode == 2


def test_held_prices_are_listed_approved_and_rejected(clerk: Clerk) -> None:
    products = [f"P-{n}" for n in range(6)]
    clerk.judged(*[to(10, product, currency="EUR") for product in products])
    clerk.policy(actions={"decimal_shift": "hold"})
    assert {line["status"] for line in clerk.judged(*[to(100, product) for product in products])} == {"held"}
    [change] = clerk.judged(to(10, "P-5"))  # said again: what was held of it is dropped
    assert change["status"] == "accepted"
    waiting = eventually(lambda: len(found := clerk.lines("held")) == 5 and found)
    assert {alert["product_id"] for alert in waiting} == set(products[:5])
    listed = clerk.run("held", "--product-id", "P-0").stdout
    assert f"message {waiting[0]['event_id']}, " in listed
    assert "P-0      10.00 -> 100.00 EUR  decimal_shift" in listed
    assert clerk.run("approve").returncode == 2
    assert clerk.run("approve", "P-0", "--all").returncode == 2
    for wanted in (("P-0", "P-5"), ("--event-id", "00000000-0000-0000-0000-000000000000")):  # all or none
        undecided = clerk.run("approve", *wanted)
        assert (undecided.returncode, undecided.stdout) == (1, "")
        assert undecided.stderr == f"nothing is held of {wanted[-1]}: nothing was decided\n"
    approved = clerk.run("approve", "P-0", "P-1", "--by", "Ada", "--reason", "a sale")
    assert (approved.returncode, approved.stdout.splitlines()) == (
        0, ["P-0 accepted: 10.00 -> 100.00 EUR", "P-1 accepted: 10.00 -> 100.00 EUR"],
    ), approved.stderr  # fmt: skip
    eventually(lambda: len(clerk.lines("held")) == 3)
    assert [line["product_id"] for line in clerk.lines("reject", "P-2")] == ["P-2"]
    eventually(lambda: len(clerk.lines("held")) == 2)
    rejected = clerk.lines("reject", "--event-id", waiting[0]["event_id"])
    assert {line["product_id"]: line["price_after"] for line in rejected} == {"P-3": "10.00", "P-4": "10.00"}
    eventually(lambda: clerk.run("held").stdout == "nothing is held\n")
    assert clerk.run("approve", "--all").stdout == "nothing is held\n"
    shown = clerk.run("alerts", "--status", "held", "--product-id", "P-1").stdout
    assert "[approve by Ada]" in shown


def test_alerts_are_listed_and_followed(clerk: Clerk) -> None:
    clerk.judged(*[to(10, f"P-{n}") for n in range(5)])
    clerk.judged(*[to(100 if n % 2 else 0, f"P-{n}") for n in range(5)])
    clerk.alerts(5)
    assert [alert["product_id"] for alert in clerk.lines("alerts")] == [f"P-{n}" for n in range(4, -1, -1)]
    assert [alert["product_id"] for alert in clerk.lines("alerts", "--status", "anomaly", "--limit", "1")] == ["P-3"]
    assert len(clerk.lines("alerts", "--min-score", "0", "--name", "non_positive", "--to", "2199-01-01")) == 3
    assert clerk.run("alerts", "--status", "fine").returncode == 2
    command = [sys.executable, "-c", "from deploy.cli import main; main()", "prices", "alerts", "--follow", "--json"]
    env = {**os.environ, **clerk.pipeline.settings.env(), "PYTHONUNBUFFERED": "1"}
    following = subprocess.Popen(
        [*command, "--status", "anomaly", *clerk.access],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # a background job's children ignore it
    )
    assert following.stdout is not None
    eventually(lambda: "tillstream_alert_streams 0.0" not in clerk.pipeline.http.get("/metrics").text)
    clerk.judged(to(0, "P-1"), to(1, "P-3"))
    alert = json.loads(following.stdout.readline())
    assert (alert["product_id"], alert["new_price"]) == ("P-3", "1.00")
    following.send_signal(signal.SIGINT)
    _, said = following.communicate(timeout=20)
    assert following.returncode == 130
    position = said.rpartition("--last-event-id ")[2].strip()
    clerk.judged(to(0, "P-2"))
    [seen] = clerk.lines("alerts", "--follow", "--limit", "1", "--product-id", "P-2", "--last-event-id", position)
    newest = eventually(lambda: len(found := clerk.get("price-alerts", product_id="P-2")["data"]) == 2 and found)[0]
    assert (seen["offset"], seen["status"]) == (newest["offset"], "rejected")


def test_every_command_explains_itself() -> None:
    def helped(*command: str) -> str:
        return CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200"}).stdout

    commands = ("change", "send", "show", "limits", "alerts", "policy", "held", "approve", "reject")
    listed = helped("prices")
    for command in commands:
        assert command in listed
        said = helped("prices", command)
        assert f"tillstream prices {command} " in " ".join(said.split()), said
