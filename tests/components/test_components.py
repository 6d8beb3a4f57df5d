# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json
import os
import threading

import numpy as np
import pytest
from kfp import dsl

from components.check_results import check_results
from components.evaluate import evaluate
from components.prepare import prepare
from components.report import report
from components.train import train
from ieg_core.errors import UserError
from ieg_core.store import lost_pods, runs
from ieg_core.store.arrays import encode
from ieg_core.sweep import plan as sweep
from ieg_core.sweep import slots, worker
from ieg_core.sweep.request import SweepRequest
from tests.records import put, put_json

TRIAL = "digits_uniform_0.8-l2r-seed0-0123456789ab"


def artifact(kind, folder, name):
    return kind(name=name, uri=str(folder / name))


def request(results, **changes):
    values = {
        "dataset": "digits_uniform",
        "noise_ratios": [0.4, 0.8],
        "methods": ["supervised", "l2r"],
        "seeds": [0.0, 1.0],  # as KFP hands over a list of whole numbers
        "recipe": "",
        "network": "",
        "features": "",
        "steps": 50,
        "settings": ["optimizer.learning_rate=0.05"],
        "accelerator": False,
        "data_dir": "data",
        "labels": "",
        **root(results),
        "run_label": "",
        "part": 1,
        "parts": 1,
        "max_trials": 100,
        "trials_per_pod": 1,
    }
    return values | changes


def root(results):
    return {"results": str(results), "results_namespace": "", "run": "1b-2c"}


def test_prepare_writes_the_data_and_lists_the_trials(tmp_path):
    plan = artifact(dsl.Markdown, tmp_path, "plan.md")
    trials = prepare.python_func(**request(tmp_path / "runs"), plan=plan)
    assert [trial.rpartition("-")[0] for trial in trials] == [
        f"digits_uniform_{noise}-{method}-seed{seed}"
        for method in ("l2r", "supervised")  # the longest first
        for noise in ("0.4", "0.8")
        for seed in (0, 1)
    ]
    assert (tmp_path / "runs" / "sweeps" / plan.metadata["sweep"] / "plan.json").exists()
    assert plan.metadata.keys() == {"sweep"}
    text = (tmp_path / "plan.md").read_text()
    assert [line.strip("- `") for line in text.splitlines()] == trials
    # Two noise ratios, two seeds, with and without a probe.
    assert len(list((tmp_path / "runs" / "label_sets").iterdir())) == 2 * 2 * 2


def test_prepare_agrees_with_the_plan_made_before(tmp_path):
    values = request(tmp_path / "runs")
    fields = {field.name for field in dataclasses.fields(SweepRequest)}
    typed = {
        key: tuple(v) if isinstance(v, list) else v for key, v in values.items() if key in fields
    }
    planned = sweep.plan(SweepRequest(**typed | {"seeds": (0, 1)}))
    plan = artifact(dsl.Markdown, tmp_path, "plan.md")
    assert prepare.python_func(**values, plan=plan) == list(planned.trials)
    assert plan.metadata["sweep"] == planned.sweep


def run_train(tmp_path, trials):
    return train.python_func(trials=trials, data_dir="data", **root(tmp_path))


@pytest.mark.parametrize("code", [0, 1, -9])
def test_train_succeeds_even_where_its_trial_fails(tmp_path, monkeypatch, code):
    calls = []
    monkeypatch.setattr(worker, "run_step", lambda *args: calls.append(args) or code)
    assert run_train(tmp_path, TRIAL) == TRIAL
    ((step, trial, results, _),) = calls
    assert (step, trial, results) == ("train", TRIAL, tmp_path)


@pytest.fixture
def sharing(monkeypatch):
    """Forgets what a task that shares its GPU puts into the environment."""
    for name in slots.shared_gpu_environment(2):
        monkeypatch.setenv(name, "")


@pytest.mark.parametrize("at_once", ["1", "3"])
def test_the_trials_of_a_pod_share_its_attempts(tmp_path, monkeypatch, sharing, at_once):
    monkeypatch.setenv(runs.ATTEMPTS, "2")
    monkeypatch.setenv(runs.AT_ONCE, at_once)
    calls = []

    def run_step(step, trial, *rest):
        calls.append(trial)
        if trial == "b":
            raise SystemExit(137)  # as if the pod were lost

    monkeypatch.setattr(worker, "run_step", run_step)
    for name in "abc":
        (tmp_path / "trials" / name).mkdir(parents=True)
    for _ in range(2):
        with pytest.raises(SystemExit):
            run_train(tmp_path, "a b c")
    assert not list(tmp_path.glob("trials/*/failure.json"))
    calls.clear()
    assert run_train(tmp_path, "a b c") == "a b c"
    assert calls == []
    for trial in "abc":
        failure = json.loads((tmp_path / "trials" / trial / "failure.json").read_text())
        assert failure["reason"].startswith("this run lost its pod 2 times")
    assert lost_pods.count_attempt(str(tmp_path), "train", "a", "resumed") == 0


def test_the_trials_of_a_pod_train_at_once_and_fail_alone(tmp_path, monkeypatch, sharing):
    """Two of three meet at the barrier; the third one begins when one of them has ended."""
    monkeypatch.setenv(runs.AT_ONCE, "2")
    barrier, calls = threading.Barrier(2), []

    def run_step(step, trial, results, data_dir):
        if trial != "c":
            barrier.wait(timeout=60)
        calls.append(trial)
        return -9

    monkeypatch.setattr(worker, "run_step", run_step)
    assert run_train(tmp_path, "a b c") == "a b c"
    assert set(calls) == set("abc")
    assert os.environ["XLA_CLIENT_MEM_FRACTION"] == "0.3750"
    assert os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"


def test_evaluate_shows_an_accuracy_for_each_trial_of_a_pod(tmp_path):
    for name in ("a", "b"):
        folder = tmp_path / "trials" / name
        folder.mkdir(parents=True)
        finish(folder, np.eye(2, dtype=np.int64))
    metrics = artifact(dsl.Metrics, tmp_path, "metrics.json")
    confusion = artifact(dsl.ClassificationMetrics, tmp_path, "confusion.json")
    shown = {"metrics": metrics, "confusion": confusion}
    shown["audit"] = artifact(dsl.HTML, tmp_path, "audit.html")
    evaluate.python_func(trials="a b", data_dir="data", **root(tmp_path), **shown)
    assert metrics.metadata == {"a accuracy_ema_last": 0.9, "b accuracy_ema_last": 0.9}
    assert not confusion.metadata
    assert "in the report of the sweep" in (tmp_path / "audit.html").read_text()


def run_evaluate(tmp_path):
    metrics = artifact(dsl.Metrics, tmp_path, "metrics.json")
    confusion = artifact(dsl.ClassificationMetrics, tmp_path, "confusion.json")
    audit = artifact(dsl.HTML, tmp_path, "audit.html")
    arguments = {"trials": TRIAL, "data_dir": "data", **root(tmp_path)}
    shown = {"metrics": metrics, "confusion": confusion, "audit": audit}
    assert evaluate.python_func(**arguments, **shown) == TRIAL
    return metrics, confusion


def finish(folder, counts):
    put(folder / "result.json", accuracy_ema_last=0.9, method="l2r")
    (folder / "matrices.safetensors").write_bytes(encode({"confusion_ema_last": counts}))


@pytest.mark.parametrize("num_classes", [2, 20])
def test_evaluate_shows_finite_numbers_and_the_confusion_matrix(tmp_path, monkeypatch, num_classes):
    folder = tmp_path / "trials" / TRIAL
    folder.mkdir(parents=True)
    counts = np.arange(num_classes**2).reshape(num_classes, num_classes)
    monkeypatch.setattr(worker, "run_step", lambda *args: finish(folder, counts))
    metrics, confusion = run_evaluate(tmp_path)
    assert metrics.metadata["accuracy_ema_last"] == 0.9
    assert not {"method", "versions", "noise_rate"} & metrics.metadata.keys()
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics.metadata
    matrix = confusion.metadata["confusionMatrix"]
    names = [each["displayName"] for each in matrix["annotationSpecs"]]
    assert names == [str(label) for label in range(num_classes)]
    assert [each["row"] for each in matrix["rows"]] == counts.tolist()
    # What goes into the metadata store: KFP's launcher reads it as strict JSON.
    assert len(json.dumps(confusion.metadata, allow_nan=False)) < 200_000


def test_evaluate_of_a_failed_trial_shows_nothing_and_succeeds(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "run_step", lambda *args: 1)
    metrics, confusion = run_evaluate(tmp_path)
    assert (metrics.metadata, confusion.metadata) == ({}, {})
    assert "<p>This trial has no audit: " in (tmp_path / "audit.html").read_text()


def test_evaluate_gives_a_trial_up_whose_pod_was_lost_too_often(tmp_path, monkeypatch):
    """Two pods end without a word; the third writes that down, and the fourth, of a resumed run,
    has all its attempts."""
    monkeypatch.setenv(runs.ATTEMPTS, "2")
    folder = tmp_path / "trials" / TRIAL
    folder.mkdir(parents=True)
    put(folder / "progress.json", step=600)

    def lose(*args):
        raise SystemExit(137)

    monkeypatch.setattr(worker, "run_step", lose)
    for _ in range(2):
        with pytest.raises(SystemExit):
            run_evaluate(tmp_path)
        assert not (folder / "failure.json").exists()
    run_evaluate(tmp_path)
    failure = json.loads((folder / "failure.json").read_text())
    assert (failure["phase"], failure["step"]) == ("evaluating", 600)
    assert failure["reason"].startswith(
        "this run lost the pod of its evaluation 2 times: out of memory"
    )
    assert "its evaluation ran out of attempts" in (tmp_path / "audit.html").read_text()
    assert lost_pods.count_attempt(str(tmp_path), "evaluate", TRIAL, "resumed") == 0


def test_evaluate_of_a_finished_trial_that_was_given_up_shows_it_without_an_audit(
    tmp_path, monkeypatch
):
    """It may be the audit that takes too much memory."""
    monkeypatch.setenv(runs.ATTEMPTS, "1")
    folder = tmp_path / "trials" / TRIAL
    folder.mkdir(parents=True)
    finish(folder, np.eye(2, dtype=np.int64))
    (folder / "examples.safetensors").write_bytes(b"too large")
    lost_pods.count_attempt(str(tmp_path), "evaluate", TRIAL, "1b-2c")
    metrics, confusion = run_evaluate(tmp_path)
    assert metrics.metadata["accuracy_ema_last"] == 0.9
    assert confusion.metadata
    assert "ran out of attempts" in (tmp_path / "audit.html").read_text()
    assert not (folder / "failure.json").exists()


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


def test_prepare_lists_the_trials_of_its_part_and_writes_the_run_down(tmp_path):
    values = request(tmp_path, results_namespace="weekly/{run}", run_label="digits-1", parts=3)
    listed = []
    for part in (1, 2, 3):
        plan = artifact(dsl.Markdown, tmp_path, "plan.md")
        listed.append(prepare.python_func(**values | {"part": part}, plan=plan))
    assert [len(trials) for trials in listed] == [3, 3, 2]
    place = tmp_path / "weekly" / "1b-2c"
    whole = json.loads((place / "sweeps" / plan.metadata["sweep"] / "plan.json").read_text())
    assert sorted(whole["trials"]) == sorted(trial for trials in listed for trial in trials)
    record = json.loads((place / "runs" / "digits-1.json").read_text())
    assert (record["sweep"], record["trials"], record["part"]) == (whole["sweep"], listed[2], 3)


def test_prepare_refuses_more_trials_than_a_run_can_have(tmp_path):
    plan = artifact(dsl.Markdown, tmp_path, "plan.md")
    with pytest.raises(UserError, match="8 trials in one run, expected at most 3: start parts=3"):
        prepare.python_func(**request(tmp_path, max_trials=3), plan=plan)


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


def test_the_verdict_fails_where_something_was_wrong():
    assert check_results.python_func(failures="") == "every trial finished"
    with pytest.raises(RuntimeError, match="trials did not finish: a: why"):
        check_results.python_func(failures="trials did not finish: a: why")
