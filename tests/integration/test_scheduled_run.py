# SPDX-License-Identifier: Apache-2.0
"""A scheduled run as KFP runs it, by kfp.local in processes; its trials are finished before."""

import json

import pytest

from ieg_core.host.files import read_json
from ieg_core.report import acceptance
from ieg_core.store.layout import trial_folder
from ieg_core.sweep import plan
from ieg_core.sweep.request import SweepRequest
from pipelines import noise_sweep, profiles
from pipelines.local import runner
from tests.pipelines.conftest import without_source_lines
from tests.records import put

__all__ = ["without_source_lines"]

NAMESPACE = "scheduled/nightly/r2"


def arguments(results, **changes):
    values = {
        "dataset": "digits_uniform", "noise_ratios": [0.8], "methods": ["supervised"],
        "seeds": [0, 1], "results": str(results), "results_namespace": NAMESPACE,
        "schedule": "nightly", "tolerance": 1.0,
    }  # fmt: skip
    return values | changes


def finished_trials(results, namespace, accuracies):
    """Plans the schedule's trials in a namespace and finishes them; returns the sweep's name."""
    root = results / namespace
    request = SweepRequest(
        "digits_uniform", (0.8,), ("supervised",), tuple(range(len(accuracies))), results=str(root)
    )
    planned = plan.plan(request)
    for trial in planned.trials:
        record = read_json(trial_folder(root, trial) / "config.json")
        keys = ("trial", "dataset", "method", "seed", "network", "recipe", "noise_rate")
        row = {key: record[key] for key in (*keys, "true_flip_rate", "clean_labels_used")}
        accuracy = accuracies[record["seed"]]
        row |= dict.fromkeys(("accuracy_ema_last", "accuracy_ema_best"), accuracy)
        row |= {"steps": record["num_steps"], "status": "finished", "reason": ""}
        row |= {"steps_per_second": 40.0, "total_seconds": 15.0}
        put(trial_folder(root, trial) / "result.json", **row)
    return planned.sweep


def run(tmp_path, attempt, **changes):
    runner.run(
        noise_sweep.build(profiles.LOCAL),
        arguments(tmp_path / "results", **changes),
        scratch=tmp_path / attempt,
        at_once=2,
    )


def test_a_run_is_held_against_the_one_that_a_person_accepted(tmp_path):
    results = tmp_path / "results"
    name = finished_trials(results, NAMESPACE, (0.80, 0.84))
    verdict = results / NAMESPACE / "sweeps" / name / "report" / "verdict.json"

    # Nothing to be held against yet, and digits in no paper: told, and no failure.
    run(tmp_path, "first")
    (found,) = json.loads(verdict.read_text())["verdicts"]
    assert found["outcome"] == "not comparable"
    assert found["reason"] == "no published figure; no run was accepted yet"

    # What that run left can be accepted; it then reproduces itself: mean 82.
    assert "accepted r2, 2 trials" in acceptance.accept(str(results), "nightly")
    run(tmp_path, "second")
    (found,) = json.loads(verdict.read_text())["verdicts"]
    assert (found["outcome"], found["figure"]) == ("reproduced", pytest.approx(82.0))

    # The next run is one point and a bit worse, mean 80.9: the run fails after its report.
    finished_trials(results, "scheduled/nightly/r3", (0.80, 0.818))
    with pytest.raises(RuntimeError, match="check-results"):
        run(tmp_path, "third", results_namespace="scheduled/nightly/r3")
    path = results / "scheduled/nightly/r3" / "sweeps" / name / "report"
    (found,) = json.loads((path / "verdict.json").read_text())["verdicts"]
    assert found["outcome"] == "not reproduced"
    assert found["accuracy"] == pytest.approx(80.9)
    assert (path / "report.html").exists()
