# SPDX-License-Identifier: Apache-2.0
import time

import pytest

from ieg_core.errors import UserError
from ieg_core.store import layout
from ieg_core.store.records import FailureRecord, PlanRecord, ProgressRecord, RunRecord
from ieg_core.tasks import late_report
from tests.records import example

TRIAL = "digits-l2r-seed0-aaaaaaaaaaaa"


def plan(root, sweep, trial=TRIAL):
    example(PlanRecord, sweep=sweep, trials=[trial]).write(root / "sweeps" / sweep)
    example(FailureRecord).write(layout.trial_folder(root, TRIAL))


def test_a_sweep_without_a_report_gets_one(tmp_path):
    plan(tmp_path, "s1")
    plan(tmp_path, "s2")
    plan(tmp_path, "mine")
    late_report.report_sweep(str(tmp_path), "s2")
    assert late_report.unreported(str(tmp_path)) == ["mine", "s1"]
    (line,) = late_report.report_unreported(str(tmp_path), besides="mine")
    assert line.startswith("s1 had no report")
    assert (tmp_path / "sweeps/s1/report/report.html").exists()
    assert late_report.unreported(str(tmp_path)) == ["mine"]
    assert layout.latest_sweep(tmp_path) == "s2"  # not what the caller's sweep comes after


def test_a_sweep_that_runs_or_never_started_is_left_alone(tmp_path):
    plan(tmp_path, "runs", "digits-l2r-seed1-aaaaaaaaaaaa")
    plan(tmp_path, "refused", "digits-l2r-seed2-aaaaaaaaaaaa")
    beat = example(ProgressRecord, phase="training", updated=time.time())
    beat.write(layout.trial_folder(tmp_path, "digits-l2r-seed1-aaaaaaaaaaaa"))
    assert late_report.report_unreported(str(tmp_path)) == []
    assert late_report.unreported(str(tmp_path)) == ["refused", "runs"]


def test_a_damaged_plan_costs_its_own_sweep_alone(tmp_path):
    plan(tmp_path, "s1")
    plan(tmp_path, "s2")
    (tmp_path / "sweeps/s1/plan.json").write_text("[")
    broken, written = late_report.report_unreported(str(tmp_path))
    assert broken.startswith("s1 has no report, and none can be written: ")
    assert written.startswith("s2 had no report")


def test_a_run_is_found_by_its_label_its_sweep_or_as_the_newest(tmp_path):
    plan(tmp_path, "s1")
    root = str(tmp_path)
    with pytest.raises(UserError, match="has no report yet"):
        late_report.find_sweep(root, "")
    example(RunRecord, sweep="s1").write(root, "digits-1")
    example(RunRecord, sweep="s1").write(root, "split-part1")
    late_report.report_sweep(root, "s1")
    for run in ("", "digits-1", "split", "s1"):
        assert late_report.find_sweep(root, run) == "s1"
    with pytest.raises(UserError, match=r"RUN='digits-2': there is no such run in"):
        late_report.find_sweep(root, "digits-2")
