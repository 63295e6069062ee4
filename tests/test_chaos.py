"""The checker on a stack of its own that is broken at random moments; and that it sees what is wrong in a history."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from deploy.chaos import history
from deploy.chaos.check import Report, check
from deploy.chaos.history import Event
from deploy.chaos.nemesis import FAULTS, schedule
from deploy.chaos.run import Plan, Result, run
from deploy.cli import app

SEED = 439
"""One that draws every kind of fault within seconds, and kills streams, sinks, gateway, Kafka and PostgreSQL."""


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Result]:
    """A short run with every kind of fault."""
    plan = Plan(seconds=25, seed=SEED, pace_s=0.2, gap_s=1.8, disk_mb=512)
    return run(plan, tmp_path_factory.mktemp("chaos") / "history.ndjson")


@pytest.fixture
def events(result: Result) -> list[Event]:
    """Its history."""
    return list(history.read(result.history))


@pytest.mark.timeout(500)
def test_nothing_is_lost_doubled_or_wrong_though_everything_is_broken_at_random_moments(result: Result) -> None:
    assert list(result.report.found()) == []
    assert result.report.good
    assert sum(result.struck.values()) >= 10
    assert {"kill", "pause", "zombie"} <= set(result.struck)
    assert result.asked["acknowledged"] > 100
    compared = result.report.compared
    assert all(compared[table] > 20 for table in ("customers", "products", "orders", "stock_levels", "prices"))


def test_a_history_tells_what_was_asked_answered_and_struck(events: list[Event]) -> None:
    kinds = {event["kind"] for event in events}
    assert {"run", "asked", "answered", "struck", "healed", "logged", "derived", "row", "law"} <= kinds
    asked = {event["id"]: event for event in events if event["kind"] == "asked"}
    assert {"new"} < {event["why"].split()[0] for event in asked.values()}
    assert any(event["refused"] for event in asked.values())
    assert all(event["id"] in asked for event in events if event["kind"] == "answered")


def test_the_same_seed_draws_the_same_faults_and_another_seed_others() -> None:
    first, again, other = (schedule(seed, 300, ("gateway", "sinks-a"), FAULTS, 6.0) for seed in (1, 1, 2))
    assert first == again != other
    assert all(strike.at + strike.for_s <= 300 for strike in first)
    assert {strike.fault for strike in first} == set(FAULTS)


def test_a_history_is_judged_again_by_the_command(result: Result, tmp_path: Path) -> None:
    replayed = CliRunner().invoke(app, ["chaos", "--history", str(result.history), "--replay", "--json"])
    assert replayed.exit_code == 0, replayed.output
    assert json.loads(replayed.output)["good"]
    torn = tmp_path / "torn.ndjson"
    lines = result.history.read_bytes().splitlines(keepends=True)
    torn.write_bytes(b"".join(line for line in lines if msgspec.json.decode(line)["kind"] != "row"))
    refused = CliRunner().invoke(app, ["chaos", "--history", str(torn), "--replay"])
    assert refused.exit_code == 1
    assert "customers lacks" in refused.output


def first(events: list[Event], kind: str, **fields: Any) -> Event:
    """The first event of a kind with these fields."""
    return next(e for e in events if e["kind"] == kind and all(e.get(name) == value for name, value in fields.items()))


def without(kind: str, **fields: Any) -> Callable[[list[Event]], None]:
    """Takes an event away."""
    return lambda events: events.remove(first(events, kind, **fields))


def twice(kind: str, **fields: Any) -> Callable[[list[Event]], None]:
    """Repeats an event."""
    return lambda events: events.append(first(events, kind, **fields))


def changed(table: str, column: str) -> Callable[[list[Event]], None]:
    """Adds one to a column of a row."""

    def change(events: list[Event]) -> None:
        event = first(events, "row", table=table)
        at = events.index(event)
        events[at] = event | {"row": event["row"] | {column: event["row"][column] + 1}}

    return change


def moved_back(events: list[Event]) -> None:
    """A zombie's write."""
    moved = first(events, "moved")
    events.append(moved | {"from_offset": moved["to_offset"], "to_offset": moved["from_offset"]})


def message_gone(events: list[Event]) -> None:
    """An acknowledged message that is nowhere."""
    answer = first(events, "answered", status=202, attempt=1, replayed=False)
    events[:] = [e for e in events if not (e["kind"] == "logged" and e["event_id"] == answer["event_ids"][0])]


@pytest.mark.parametrize(
    ("spoil", "fault", "words"),
    [
        (without("row", table="orders"), "lost", "orders lacks"),
        (without("row", table="ledger"), "lost", "ledger lacks"),
        (without("derived", topic="outcomes"), "lost", "streams left nothing"),
        (without("derived", topic="ingestion.unique"), "lost", "streams left nothing"),
        (message_gone, "lost", "is not in the log"),
        (twice("derived", topic="ingestion.unique"), "doubled", "streams left 2 messages"),
        (twice("written"), "doubled", "sinks wrote the ledger line"),
        (twice("row", table="stock_movements"), "doubled", "stock_movements has"),
        (changed("stock_levels", "quantity"), "wrong", "quantity is"),
        (changed("products", "price"), "wrong", "price is"),
        (changed("prices", "version"), "wrong", "version is"),
        (changed("orders", "version_offset"), "wrong", "version_offset is"),
        (changed("ledger", "applied"), "wrong", "applied is"),
        (moved_back, "wrong", "no longer owned"),
        (without("moved"), "wrong", "the offset of tenants[0] is"),
        (without("written"), "wrong", "nobody saw a sink write the ledger line"),
        (twice("moved"), "doubled", "sinks went twice over"),
        (without("end"), "wrong", "not written to its end"),
    ],
)
def test_the_checker_sees(events: list[Event], spoil: Callable[[list[Event]], None], fault: str, words: str) -> None:
    spoil(events)
    report: Report = check(events)
    assert not report.good
    assert any(words in what for what in getattr(report, fault)), list(report.found())[:5]
