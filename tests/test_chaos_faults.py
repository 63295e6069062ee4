"""The checker finds faults that are put into the product: each in real processes, by the faults that bring it to light.

The product has no switch for any of these. A module beside this file patches the function, then runs the process.
"""

from pathlib import Path

import pytest

from deploy.chaos.nemesis import Strike
from deploy.chaos.run import Plan, Result, run

SEEDS = (1, 2, 3)
KILLS = tuple(
    Strike(at, "kill", f"streams-{worker}")
    for at, worker in ((2.0, "a"), (3.5, "b"), (5.0, "a"), (8.0, "b"), (10.0, "a"), (12.5, "b"))
)
FREEZES = tuple(
    strike
    for n, (worker, after) in enumerate((("a", 0.04), ("b", 0.08), ("a", 0.12), ("b", 0.2)))
    for strike in (
        Strike(1.5 + 6 * n, "pause", f"streams-{worker}", 2.5),
        Strike(4.0 + 6 * n + after, "pause", "kafka", 0.8),
        Strike(4.4 + 6 * n + after, "kill", f"streams-{worker}"),
    )
)
"""A worker that has much to do is killed while Kafka holds its breath: half of what it flushes arrives afterwards."""
ZOMBIES = (Strike(3.0, "zombie", "sinks-a", 9.0), Strike(13.0, "zombie", "sinks-b", 9.0))
"""Each outlasts the session: another has the partitions when the worker goes on."""


def found(tmp_path: Path, role: str, module: str, strikes: tuple[Strike, ...], seconds: float) -> Result:
    """The first of several runs that finds something, or the last."""
    for seed in SEEDS:
        plan = Plan(
            seconds=seconds, seed=seed, clients=3, pace_s=0.05, rows=5, disk_mb=0, drain_s=60, strikes=strikes
        )  # fmt: skip
        result = run(plan, tmp_path / f"{seed}.ndjson", modules={role: module})
        if not result.report.good:
            break
    return result


@pytest.mark.timeout(600)
def test_it_finds_that_sinks_move_offsets_which_others_have_moved(tmp_path: Path) -> None:
    report = found(tmp_path, "sinks", "tests.faulty_sinks", ZOMBIES, 23).report
    signs = "no longer owned", "sinks wrote the ledger line"
    assert any(sign in what for what in (*report.wrong, *report.doubled) for sign in signs), list(report.found())[:5]


@pytest.mark.timeout(600)
def test_it_finds_that_tables_forget_what_was_flushed(tmp_path: Path) -> None:
    report = found(tmp_path, "streams", "tests.faulty_fence", KILLS, 14).report
    assert any("streams left" in what for what in report.doubled), list(report.found())[:5]


@pytest.mark.timeout(600)
def test_it_finds_that_outputs_and_changelog_are_no_transaction(tmp_path: Path) -> None:
    report = found(tmp_path, "streams", "tests.faulty_flush", FREEZES, 24).report
    assert any("streams left" in what for what in (*report.doubled, *report.lost)), list(report.found())[:5]
