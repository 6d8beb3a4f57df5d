# SPDX-License-Identifier: Apache-2.0
"""What `evaluate` shows of trials and of their audits in the KFP UI."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from kfp import dsl

from components.evaluate import evaluate
from ieg_core.audit import write
from ieg_core.store import lost_pods, runs
from ieg_core.store.arrays import encode
from ieg_core.store.layout import trial_folder
from ieg_core.sweep import plan as sweep
from ieg_core.sweep import worker
from ieg_core.sweep.request import SweepRequest
from tests.components.calls import artifact, root
from tests.records import put

RESULT = {"status": "finished", "accuracy_ema_last": 0.9}


@pytest.fixture
def evaluated(monkeypatch):
    monkeypatch.setattr(worker, "run_step", lambda *args: 0)


def run_component(tmp_path, trial):
    kinds = {"metrics": dsl.Metrics, "confusion": dsl.ClassificationMetrics, "audit": dsl.HTML}
    shown = {name: kind(name=name, uri=str(tmp_path / name)) for name, kind in kinds.items()}
    where = {"results": str(tmp_path / "runs"), "results_namespace": "", "run": "run"}
    assert evaluate.python_func(trials=trial, data_dir="data", **where, **shown) == trial
    return Path(shown["audit"].path).read_text(encoding="utf-8"), shown["metrics"].metadata


def audited(metrics):
    return {name: value for name, value in metrics.items() if name.startswith("audit_")}


def plan(tmp_path, method="supervised"):
    request = SweepRequest("digits_uniform_0.4", methods=(method,), results=str(tmp_path / "runs"))
    (trial,) = sweep.plan(request).trials
    return trial, trial_folder(tmp_path / "runs", trial)


def trained(tmp_path):
    trial, folder = plan(tmp_path)
    visits = np.ones(1438, np.int32)
    believed = np.random.default_rng(0).dirichlet(np.ones(10), 1438).astype(np.float32)
    said = {"visits": visits, "all_visits": visits, "prediction": believed}
    (folder / "examples.safetensors").write_bytes(encode(said))
    put(folder / "result.json", **RESULT)
    return trial, folder


def test_a_trained_trial_gets_its_page_and_its_numbers(evaluated, tmp_path):
    trial, folder = trained(tmp_path)
    page, metrics = run_component(tmp_path, trial)
    assert page == (folder / "audit" / "audit.html").read_text(encoding="utf-8")
    summary = json.loads((folder / "audit" / "summary.json").read_text())
    assert metrics["audit_average_precision"] == summary["average_precision"]
    assert metrics["audit_flagged"] == summary["flagged"]
    assert metrics["accuracy_ema_last"] == RESULT["accuracy_ema_last"]
    assert all(math.isfinite(value) for value in metrics.values())


def test_an_audit_that_is_there_is_shown_and_not_made_again(evaluated, tmp_path, monkeypatch):
    trial, folder = trained(tmp_path)
    (folder / "audit").mkdir()
    (folder / "audit" / "audit.html").write_text("<p>made with the training")
    put(folder / "audit" / "summary.json", flagged=3, examples=9, not_seen=0, seed=0)
    monkeypatch.setattr(write, "audit_trial", lambda *args: pytest.fail("made again"))
    page, metrics = run_component(tmp_path, trial)
    assert page == "<p>made with the training"
    assert audited(metrics) == {
        "audit_flagged": 3, "audit_examples": 9, "audit_not_seen": 0, "audit_seed": 0,
        "audit_threshold": 0.5,
    }  # fmt: skip


def test_a_damaged_summary_is_made_again(evaluated, tmp_path):
    trial, folder = trained(tmp_path)
    (folder / "audit").mkdir()
    (folder / "audit" / "audit.html").write_text("old")
    (folder / "audit" / "summary.json").write_text("{")
    page, metrics = run_component(tmp_path, trial)
    assert page != "old"
    assert metrics["audit_examples"] == 1438


@pytest.mark.parametrize(
    ("method", "reason"), [("probe_only", "is not available"), ("ieg", "its training is not done")]
)
def test_a_trial_that_cannot_be_audited_says_why_and_stops_nothing(
    evaluated, tmp_path, method, reason
):
    trial, _ = plan(tmp_path, method)
    page, metrics = run_component(tmp_path, trial)
    assert page.count("<p>") == 1
    assert reason in page
    assert metrics == {}


def test_an_audit_that_fails_costs_itself_alone(evaluated, tmp_path, monkeypatch):
    trial, folder = trained(tmp_path)

    def fail(*args):
        raise MemoryError("<no room>")

    monkeypatch.setattr(write, "audit_trial", fail)
    page, metrics = run_component(tmp_path, trial)
    assert "no audit: exit code 1: MemoryError: &lt;no room&gt;" in page
    assert metrics["accuracy_ema_last"] == RESULT["accuracy_ema_last"]
    assert audited(metrics) == {}
    assert "Traceback" in (folder / "log.txt").read_text()


TRIAL = "digits_uniform_0.8-l2r-seed0-0123456789ab"


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
