# SPDX-License-Identifier: Apache-2.0
"""Exports trials as runs of MLflow, in the files of its FileStore; MLflow itself is not needed.

`mlflow ui --backend-store-uri FOLDER` shows them (MLflow 3: with MLFLOW_ALLOW_FILE_STORE=true, or
moved into a database by `mlflow migrate-filestore`). The layout is that of `mlflow.store.tracking`:
a folder for each experiment, in it one for each run with meta.yaml, and a file for each parameter,
tag and metric; a metric's file has a line "milliseconds value step" for each value.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ieg_core.host.files import writable
from ieg_core.report.provenance import flat_settings
from ieg_core.report.trials import FINISHED, Sweep, Trial

STATUS = {FINISHED: 3}
FAILED = 4
LOCAL_SOURCE = 4
MAX_NAME = 240


def write_mlflow(sweeps: Iterable[Sweep], folder: Path) -> int:
    """Writes an experiment for each sweep, a run for each trial.

    The files depend only on the results: a second export replaces the first.

    Args:
      sweeps: The sweeps.
      folder: The tracking folder; other experiments in it stay.

    Returns:
      The number of runs.

    Raises:
      UserError: When a file cannot be written.
    """
    count = 0
    with writable(folder):
        for sweep in sweeps:
            number = str(int(_digest(sweep.name)[:15], 16))
            place = folder / number
            _write_yaml(
                place / "meta.yaml",
                {
                    "artifact_location": place.absolute().as_uri(),
                    "creation_time": 0,
                    "experiment_id": number,
                    "last_update_time": 0,
                    "lifecycle_stage": "active",
                    "name": sweep.name,
                },
            )
            for trial in sweep.trials:
                _write_run(place, number, trial)
                count += 1
    return count


def _write_run(experiment: Path, number: str, trial: Trial) -> None:
    name = str(trial.row["trial"])
    run = _digest(name)[:32]
    place = experiment / run
    _write_yaml(
        place / "meta.yaml",
        {
            "artifact_uri": (place / "artifacts").absolute().as_uri(),
            "end_time": 0,
            "entry_point_name": "",
            "experiment_id": number,
            "lifecycle_stage": "active",
            "run_id": run,
            "run_name": name,
            "run_uuid": run,
            "source_name": "",
            "source_type": LOCAL_SOURCE,
            "source_version": "",
            "start_time": 0,
            "status": STATUS.get(trial.row["status"], FAILED),
            "tags": [],
            "user_id": "",
        },
    )
    for key, value in flat_settings(trial.settings).items():
        _write(place / "params" / _name(key), str(value))
    tags = {"mlflow.runName": name, "reason": trial.row["reason"] or "", **_texts(trial.row)}
    for key, value in tags.items():
        _write(place / "tags" / _name(key), value)
    for key, values in _metrics(trial).items():
        lines = "".join(f"0 {value!r} {step}\n" for step, value in sorted(values.items()))
        _write(place / "metrics" / _name(key), lines)
    (place / "artifacts").mkdir(exist_ok=True)


def _metrics(trial: Trial) -> dict[str, dict[int, float]]:
    """Returns the values of each metric by step: the curves, then the result after the last."""
    metrics: dict[str, dict[int, float]] = {}
    for prefix, rows in _curves(trial):
        for row in rows:
            for key, value in row.items():
                if key != "step" and math.isfinite(value):
                    metrics.setdefault(f"{prefix}/{key}", {})[int(row.get("step", 0))] = float(
                        value
                    )
    for key, value in trial.row.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if number and math.isfinite(value):
            metrics[f"result/{key}"] = {int(trial.row["steps"] or 0): float(value)}
    return metrics


def _curves(trial: Trial) -> Iterator[tuple[str, Iterable[Mapping[str, float]]]]:
    if trial.curves is not None:
        yield "training", trial.curves.training
        yield "evaluation", trial.curves.evaluations


def _texts(row: Mapping[str, Any]) -> dict[str, str]:
    return {key: value for key, value in row.items() if isinstance(value, str) and value}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _name(key: str) -> str:
    """Returns a name that MLflow takes: letters, digits and "_-./ "."""
    return re.sub(r"[^\w.\-/ ]", "_", key, flags=re.ASCII)[:MAX_NAME]


def _write_yaml(path: Path, values: Mapping[str, Any]) -> None:
    # JSON is YAML, and its quotes keep a name such as "1e5" a text.
    _write(path, "".join(f"{key}: {json.dumps(value)}\n" for key, value in values.items()))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
