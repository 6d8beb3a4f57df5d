# SPDX-License-Identifier: Apache-2.0
"""The components on a results root in a bucket, each with a scratch folder of its own."""

import numpy as np
import pytest
from kfp import dsl

from components.evaluate import evaluate
from components.prepare import prepare
from components.report import report
from components.train import train
from ieg_core.host import files
from ieg_core.store import gcs as storage
from ieg_core.store import layout, mirror, runs
from ieg_core.store.arrays import encode
from ieg_core.store.records import (
    AttemptsRecord,
    AuditRecord,
    FailureRecord,
    LeaseRecord,
    ReportRecord,
    RunRecord,
    TrainingRecord,
)
from ieg_core.sweep import worker
from tests import gcs
from tests.components.calls import artifact, run_child
from tests.records import example, put

ROOT = f"gs://{gcs.BUCKET}/ieg"
PLACE = f"{ROOT}/nightly/1b-2c"
WHERE = {"results": ROOT, "results_namespace": "nightly/{run}", "run": "1b-2c"}
REQUEST = {
    "dataset": "digits_uniform",
    "noise_ratios": [0.8],
    "methods": ["supervised", "l2r"],
    "seeds": [0.0],
    "recipe": "",
    "network": "",
    "features": "",
    "steps": 50,
    "settings": [],
    "accelerator": False,
    "labels": "",
    "data_dir": "data",
    **WHERE,
    "run_label": "digits-1",
    "part": 1,
    "parts": 1,
    "max_trials": 100,
    "trials_per_pod": 1,
}


@pytest.fixture(autouse=True)
def _emulator(monkeypatch):
    monkeypatch.setattr(worker, "_run", run_child)
    with gcs.serve() as running:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", running.host)
        yield


def finish(step, trial, root, data_dir):
    """What a training leaves behind."""
    folder = layout.trial_folder(root, trial)
    assert (folder / "config.json").exists()
    method = "l2r" if "-l2r-" in trial else "supervised"
    row = {"status": "finished", "reason": "", "method": method, "accuracy_ema_last": 0.9}
    row |= {"accuracy_ema_best": 0.9, "steps_per_second": 30.0, "total_seconds": 20.0}
    counts = {"confusion_ema_last": np.eye(10, dtype=np.int64)}
    files.write_bytes_atomic(folder / "matrices.safetensors", encode(counts))
    put(folder / "result.json", **row)
    return 0


def test_a_run_goes_from_request_to_report(tmp_path, monkeypatch):
    plan = artifact(dsl.Markdown, tmp_path, "plan.md")
    trials = prepare.python_func(**REQUEST, plan=plan)
    assert len(trials) == 2
    assert RunRecord.read(PLACE, "digits-1").trials == trials
    monkeypatch.setattr(worker, "run_step", finish)
    where = {"data_dir": "data", **WHERE}
    assert train.python_func(trials=trials[0], **where) == trials[0]
    metrics = artifact(dsl.Metrics, tmp_path, "metrics.json")
    confusion = artifact(dsl.ClassificationMetrics, tmp_path, "confusion.json")
    audit = artifact(dsl.HTML, tmp_path, "audit.html")
    shown = {"metrics": metrics, "confusion": confusion, "audit": audit}
    evaluate.python_func(trials=trials[0], **where, **shown)
    assert metrics.metadata["accuracy_ema_last"] == 0.9
    assert len(confusion.metadata["confusionMatrix"]["rows"]) == 10
    assert "has no audit" in (tmp_path / "audit.html").read_text()
    page = artifact(dsl.HTML, tmp_path, "page.html")
    table = artifact(dsl.Markdown, tmp_path, "table.md")
    judged = {"schedule": "", "tolerance": -1.0, "accepted": ""}
    failed = report.python_func(
        plan=plan, evaluated=trials, **WHERE, **judged, page=page, table=table
    )
    assert failed == f"trials did not finish: {trials[1]}: not run"
    rows = ReportRecord.read(f"{PLACE}/sweeps/{plan.metadata['sweep']}").trials
    assert sorted(row["status"] for row in rows) == ["finished", "skipped"]
    assert mirror.latest(PLACE) == plan.metadata["sweep"]
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")


def test_a_trial_is_given_up_there_too(tmp_path, monkeypatch):
    """Its first pod is lost: it leaves a lease that nobody ended, too old to be waited for."""
    plan = artifact(dsl.Markdown, tmp_path, "plan.md")
    trial, *_ = prepare.python_func(**REQUEST, plan=plan)
    url = f"{PLACE}/trials/{trial}"
    example(AttemptsRecord, attempts=1).write(url, "train", "1b-2c")
    example(LeaseRecord, machine="gone", started=0.0).write(url, 1)
    monkeypatch.setenv(runs.ATTEMPTS, "1")
    monkeypatch.setattr(worker, "run_step", lambda *args: pytest.fail("it trained"))
    assert train.python_func(trials=trial, data_dir="data", **WHERE) == trial
    assert "lost its pod once" in FailureRecord.read(url).reason
    assert LeaseRecord.read(url, 2).ended


def evaluate_once(folder, trial):
    """Evaluates a trial in a scratch folder of its own; returns its page and its metrics."""
    kinds = {"metrics": dsl.Metrics, "confusion": dsl.ClassificationMetrics, "audit": dsl.HTML}
    folder.mkdir()
    shown = {name: artifact(kind, folder, f"{name}.out") for name, kind in kinds.items()}
    evaluate.python_func(trials=trial, data_dir="data", **WHERE, **shown)
    return (folder / "audit.out").read_text(encoding="utf-8"), shown["metrics"].metadata


def test_an_audit_is_made_once_and_lies_in_the_bucket(tmp_path, monkeypatch):
    """The second pod finds the page there, and downloads nothing to make one from."""
    plan = artifact(dsl.Markdown, tmp_path, "plan.md")
    trial, *_ = prepare.python_func(**REQUEST, plan=plan)
    url = f"{PLACE}/trials/{trial}"
    visits = np.ones(1438, np.int32)
    believed = np.random.default_rng(0).dirichlet(np.ones(10), 1438).astype(np.float32)
    said = {"visits": visits, "all_visits": visits, "prediction": believed}
    storage.write(f"{url}/examples.safetensors", encode(said))
    example(TrainingRecord).write(url)
    monkeypatch.setattr(worker, "run_step", finish)
    page, metrics = evaluate_once(tmp_path / "a", trial)
    assert AuditRecord.read(url).flagged == metrics["audit_flagged"]
    assert {f"audit/audit.{kind}" for kind in ("html", "csv", "parquet")} < set(
        storage.list_files(url)
    )
    storage.write(f"{url}/examples.safetensors", b"not looked at")
    assert evaluate_once(tmp_path / "b", trial) == (page, metrics)


def test_an_evaluation_is_given_up_there_too(tmp_path, monkeypatch):
    plan = artifact(dsl.Markdown, tmp_path, "plan.md")
    trial, other = prepare.python_func(**REQUEST, plan=plan)
    monkeypatch.setenv(runs.ATTEMPTS, "1")

    def lose(*args):
        raise SystemExit(137)

    monkeypatch.setattr(worker, "run_step", lose)
    with pytest.raises(SystemExit):
        evaluate_once(tmp_path / "a", trial)
    page, metrics = evaluate_once(tmp_path / "b", trial)
    assert "ran out of attempts" in page
    assert "accuracy_ema_last" not in metrics
    url = f"{PLACE}/trials/{trial}"
    assert "lost the pod of its evaluation once" in FailureRecord.read(url).reason
    assert AttemptsRecord.read(url, "evaluate", "1b-2c") == AttemptsRecord(attempts=2)
    monkeypatch.setattr(worker, "run_step", finish)
    _, metrics = evaluate_once(tmp_path / "c", other)
    assert metrics["accuracy_ema_last"] == 0.9
