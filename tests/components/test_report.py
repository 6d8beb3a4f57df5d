# SPDX-License-Identifier: Apache-2.0
import json

import pytest
from kfp import dsl

from components.check_results import check_results
from components.prepare import prepare
from components.report import report
from tests.components.calls import artifact, request, root
from tests.records import put, put_json


@pytest.fixture
def finished_sweep(tmp_path):
    """A planned sweep of two trials, the first finished; returns the plan artifact."""
    plan = artifact(dsl.Markdown, tmp_path, "plan.md")
    values = request(tmp_path, noise_ratios=[0.8], seeds=[0.0])
    trials = prepare.python_func(**values, plan=plan)
    row = {"status": "finished", "reason": "", "accuracy_ema_last": 0.9, "accuracy_ema_best": 0.9}
    row |= {"method": "supervised", "steps_per_second": 30.0, "total_seconds": 20.0}
    put(tmp_path / "trials" / trials[0] / "result.json", **row)
    return plan, trials, row


def run_report(tmp_path, plan, trials, **judged):
    judged = {"schedule": "", "tolerance": -1.0, "accepted": ""} | judged
    page = artifact(dsl.HTML, tmp_path, "page.html")
    table = artifact(dsl.Markdown, tmp_path, "table.md")
    return report.python_func(
        plan=plan, evaluated=trials, **root(tmp_path), **judged, page=page, table=table
    )


def test_report_names_the_trials_that_did_not_finish(tmp_path, finished_sweep):
    plan, trials, _ = finished_sweep
    put(tmp_path / "trials" / trials[1] / "failure.json", reason="out of memory")
    assert (
        run_report(tmp_path, plan, trials) == f"trials did not finish: {trials[1]}: out of memory"
    )
    folder = tmp_path / "latest" / "report"
    assert (tmp_path / "page.html").read_text() == (folder / "report.html").read_text()
    assert (tmp_path / "table.md").read_text() == (folder / "results.md").read_text()
    rows = json.loads((folder / "results.json").read_text())["trials"]
    assert sorted(row["status"] for row in rows) == ["failed", "finished"]


def test_report_of_a_whole_sweep_names_none(tmp_path, finished_sweep):
    plan, trials, row = finished_sweep
    put(tmp_path / "trials" / trials[1] / "result.json", **row | {"method": "l2r"})
    assert run_report(tmp_path, plan, trials) == ""


def test_report_names_the_trials_of_its_own_run_alone(tmp_path, finished_sweep):
    plan, trials, _ = finished_sweep
    assert run_report(tmp_path, plan, trials[:1]) == ""
    assert run_report(tmp_path, plan, trials[1:]) == f"trials did not finish: {trials[1]}: not run"


def accepted_run(tmp_path, trials, accuracy):
    """Writes an accepted run of the first trial's settings that reached another accuracy."""
    config = json.loads((tmp_path / "trials" / trials[0] / "config.json").read_text())
    keys = ("dataset", "method", "network", "recipe", "clean_labels_used", "true_flip_rate")
    row = {key: config[key] for key in (*keys, "changed_settings", "noise_rate")}
    row |= {"steps": config["num_steps"], "status": "finished", "accuracy_ema_last": accuracy}
    row |= {"steps_per_second": 1.0, "total_seconds": 1.0, "accuracy_ema_best": accuracy}
    path = tmp_path / "accepted" / "nightly.json"
    path.parent.mkdir()
    put_json(path, {"schema": 1, "trials": [row]})


@pytest.mark.parametrize(("accuracy", "verdicts"), [(0.91, "reproduced"), (0.97, "not reproduced")])
def test_a_scheduled_run_is_judged_against_the_accepted_one(
    tmp_path, finished_sweep, accuracy, verdicts
):
    plan, trials, row = finished_sweep
    config = json.loads((tmp_path / "trials" / trials[0] / "config.json").read_text())
    keys = ("method", "dataset", "network", "recipe", "noise_rate", "true_flip_rate")
    row |= {key: config[key] for key in (*keys, "clean_labels_used")}
    row |= {"steps": config["num_steps"]}
    put(tmp_path / "trials" / trials[0] / "result.json", **row)
    accepted_run(tmp_path, trials, accuracy)
    failed = run_report(tmp_path, plan, trials[:1], schedule="nightly", tolerance=2.0)
    # 90.0 against 91.0 and 97.0, two points of tolerance.
    assert bool(failed) == (verdicts == "not reproduced")
    document = json.loads((tmp_path / "latest" / "report" / "verdict.json").read_text())
    assert [v["outcome"] for v in document["verdicts"] if v["accuracy"]] == [verdicts]
    assert document["schedule"] == "nightly"
    text = (tmp_path / "table.md").read_text()
    assert text.startswith("# Reproduction nightly, tolerance 2 points\n")
    assert f"**{verdicts}**" in text
    if failed:
        assert f"{accuracy * 100:.2f} (last accepted run)" in failed
        with pytest.raises(RuntimeError, match="not reproduced"):
            check_results.python_func(failures=failed)
