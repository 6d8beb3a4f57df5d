# SPDX-License-Identifier: Apache-2.0
"""What `evaluate` shows of a trial's audit in the KFP UI."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from kfp import dsl

from components.evaluate import evaluate
from ieg_core.audit import write
from ieg_core.store.arrays import encode
from ieg_core.store.layout import trial_folder
from ieg_core.sweep import plan as sweep
from ieg_core.sweep import worker
from ieg_core.sweep.request import SweepRequest
from tests.records import put

RESULT = {"status": "finished", "accuracy_ema_last": 0.9}


@pytest.fixture(autouse=True)
def _evaluated(monkeypatch):
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


def test_a_trained_trial_gets_its_page_and_its_numbers(tmp_path):
    trial, folder = trained(tmp_path)
    page, metrics = run_component(tmp_path, trial)
    assert page == (folder / "audit" / "audit.html").read_text(encoding="utf-8")
    summary = json.loads((folder / "audit" / "summary.json").read_text())
    assert metrics["audit_average_precision"] == summary["average_precision"]
    assert metrics["audit_flagged"] == summary["flagged"]
    assert metrics["accuracy_ema_last"] == RESULT["accuracy_ema_last"]
    assert all(math.isfinite(value) for value in metrics.values())


def test_an_audit_that_is_there_is_shown_and_not_made_again(tmp_path, monkeypatch):
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


def test_a_damaged_summary_is_made_again(tmp_path):
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
def test_a_trial_that_cannot_be_audited_says_why_and_stops_nothing(tmp_path, method, reason):
    trial, _ = plan(tmp_path, method)
    page, metrics = run_component(tmp_path, trial)
    assert page.count("<p>") == 1
    assert reason in page
    assert metrics == {}


def test_an_audit_that_fails_costs_itself_alone(tmp_path, monkeypatch):
    trial, folder = trained(tmp_path)

    def fail(*args):
        raise MemoryError("<no room>")

    monkeypatch.setattr(write, "audit_trial", fail)
    page, metrics = run_component(tmp_path, trial)
    assert "no audit: exit code 1: MemoryError: &lt;no room&gt;" in page
    assert metrics["accuracy_ema_last"] == RESULT["accuracy_ema_last"]
    assert audited(metrics) == {}
    assert "Traceback" in (folder / "log.txt").read_text()
