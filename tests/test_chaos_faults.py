"""The checker finds faults that are put into the product, each in real processes, at its worst moment.

The product has no switch for any of these. A module beside this file patches the function, sees to it that the process
is killed or stopped when that hurts most, then runs it.
"""

from pathlib import Path

import pytest

from deploy.chaos.check import Report
from deploy.chaos.run import Plan, run

PLAN = Plan(seconds=8, seed=1, clients=3, pace_s=0.05, rows=5, disk_mb=0, drain_s=90, strikes=())


def found(tmp_path: Path, role: str, module: str) -> Report:
    """What a run finds with `module` in the place of `role`; the module itself sees to the fault's moment."""
    return run(PLAN, tmp_path / "history.ndjson", modules={role: module}).report


@pytest.mark.timeout(300)
def test_it_finds_that_sinks_move_offsets_which_others_have_moved(tmp_path: Path) -> None:
    report = found(tmp_path, "sinks", "tests.faulty_sinks")
    signs = "no longer owned", "sinks wrote the ledger line"
    assert any(sign in what for what in (*report.wrong, *report.doubled) for sign in signs), list(report.found())[:5]


@pytest.mark.timeout(300)
def test_it_finds_that_tables_forget_what_was_flushed(tmp_path: Path) -> None:
    report = found(tmp_path, "streams", "tests.faulty_fence")
    assert any("streams left" in what for what in report.doubled), list(report.found())[:5]


@pytest.mark.timeout(300)
def test_it_finds_that_outputs_and_changelog_are_no_transaction(tmp_path: Path) -> None:
    report = found(tmp_path, "streams", "tests.faulty_flush")
    assert any("streams left" in what for what in (*report.doubled, *report.lost)), list(report.found())[:5]
