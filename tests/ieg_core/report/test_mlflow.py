# SPDX-License-Identifier: Apache-2.0
"""Runs of MLflow; MLflow 3.17.2 has read such a folder (docs/cluster.md)."""

from pathlib import Path

import pytest
import yaml

from ieg_core.cli.main import main
from ieg_core.report.mlflow import write_mlflow
from ieg_core.report.trials import ROW_KEYS, Sweep, Trial
from ieg_core.store.records import CurvesRecord


def trial(name, **row):
    curves = CurvesRecord(
        training=[{"step": 10, "loss": 2.0}, {"step": 20, "loss": float("nan")}],
        evaluations=[{"step": 20, "accuracy_ema": 0.5}],
    )
    settings = {"optimizer": {"learning_rate": 0.1}}
    row = dict.fromkeys(ROW_KEYS) | {"trial": name, "status": "finished", "steps": 20} | row
    return Trial(row, settings=settings, curves=curves)


def read(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def sweep():
    trials = (trial("a", accuracy_ema_last=0.9), trial("b", status="failed", reason="killed"))
    return Sweep("digits-1", "make sweep", "2026-01-02T03:04:05Z", trials)


def test_a_trial_is_a_run_with_parameters_tags_and_curves(sweep, tmp_path):
    assert write_mlflow([sweep], tmp_path) == 2
    (experiment,) = tmp_path.iterdir()
    assert yaml.safe_load((experiment / "meta.yaml").read_text())["name"] == "digits-1"
    runs = {yaml.safe_load(p.read_text())["run_name"]: p.parent for p in experiment.glob("*/meta*")}
    meta = yaml.safe_load((runs["a"] / "meta.yaml").read_text())
    assert (meta["status"], meta["run_id"], meta["experiment_id"]) == (
        *(3, runs["a"].name, experiment.name),
    )
    files = read(runs["a"])
    assert files["params/optimizer.learning_rate"] == "0.1"
    assert files["tags/mlflow.runName"] == "a"
    assert files["metrics/training/loss"] == "0 2.0 10\n"  # MLflow's files cannot hold NaN
    assert files["metrics/evaluation/accuracy_ema"] == "0 0.5 20\n"
    assert files["metrics/result/accuracy_ema_last"] == "0 0.9 20\n"
    assert yaml.safe_load((runs["b"] / "meta.yaml").read_text())["status"] == 4
    assert read(runs["b"])["tags/reason"] == "killed"


def test_a_second_export_changes_nothing(sweep, tmp_path):
    write_mlflow([sweep], tmp_path)
    before = read(tmp_path)
    write_mlflow([sweep], tmp_path)
    assert read(tmp_path) == before


def test_a_folder_without_results_is_one_line(tmp_path, capsys):
    assert main(["export", str(tmp_path), f"--mlflow={tmp_path / 'out'}"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "out").exists()
