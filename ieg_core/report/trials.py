# SPDX-License-Identifier: Apache-2.0
"""Reads a sweep's trials from the results root; a damaged file costs its own trial alone."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from ieg_core.data.image_folder.dataset import describe_notes
from ieg_core.data.label_set import ManifestRecord
from ieg_core.errors import UserError
from ieg_core.experiment import dataset_spec, methods
from ieg_core.report.provenance import surroundings
from ieg_core.store.layout import (
    MATRICES,
    label_sets_folder,
    relative_trial,
    sweep_folder,
    trial_folder,
)
from ieg_core.store.records import (
    AuditRecord,
    CurvesRecord,
    FailureRecord,
    PlanRecord,
    ProgressRecord,
    ResultRecord,
    TrainingRecord,
    TrialRecord,
)

ROW_KEYS = (
    "dataset",
    "method",
    "noise_rate",
    "true_flip_rate",
    "seed",
    "network",
    "recipe",
    "steps",
    "recipe_steps",
    "changed_settings",
    "clean_labels_used",
    "accuracy_ema_last",
    "accuracy_ema_best",
    "accuracy_last",
    "accuracy_best",
    "top5_ema_last",
    "top5_last",
    "balanced_accuracy_ema_last",
    "per_class_accuracy_ema_last",
    "dictionary_repeats",
    "dictionary_repeated_classes",
    "status",
    "reason",
    "train_seconds",
    "steps_per_second",
    "total_seconds",
    "num_gpus",
    "gpu_hours",
    "backend",
    "precision",
    "num_parameters",
    "device",
    "threads",
    "run_directory",
    "trial",
    "code_version",
    "git_revision",
    "versions",
)
"""What every row of results.json has, also for a trial that failed or never ran (null there)."""

FINISHED, FAILED, SKIPPED = "finished", "failed", "skipped"

Row = dict[str, Any]


@dataclass(frozen=True)
class Trial:
    """One training run as the report shows it.

    Attributes:
      row: Its row of results.json, with every key of `ROW_KEYS`.
      settings: The resolved configuration as nested plain values; empty if unreadable.
      surroundings: What else decides its outcome (`protocol.surroundings`).
      curves: What was measured while it was trained.
      confusion: Counts, int64 [C, C], rows = true class, EMA parameters after the last step.
      class_names: C names; empty if unknown.
      failure: Why it failed.
      audit: Its audit in numbers, if it was audited.
      notes: What reading its data brought to light, a line each for people.
    """

    row: Row
    settings: Mapping[str, Any] = field(default_factory=dict)
    surroundings: Mapping[str, str] = field(default_factory=dict)
    curves: CurvesRecord | None = None
    confusion: np.ndarray | None = None
    class_names: tuple[str, ...] = ()
    failure: FailureRecord | None = None
    audit: AuditRecord | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sweep:
    """A sweep's plan and its trials, sorted by what they are and not by when they were planned."""

    name: str
    command: str
    created: str
    trials: tuple[Trial, ...]

    @property
    def rows(self) -> list[Row]:
        """The rows of results.json."""
        return [trial.row for trial in self.trials]

    @property
    def notes(self) -> list[str]:
        """What reading the data brought to light, each line once."""
        return list(dict.fromkeys(note for trial in self.trials for note in trial.notes))


def load_sweep(results_root: Path, sweep: str) -> Sweep:
    """Reads the plan of a sweep and everything that its trials left behind.

    Args:
      results_root: The results root, with `sweeps/` and `trials/`.
      sweep: The sweep's name.

    Returns:
      The sweep; its trials sorted by data set, noise rate, method (as in `settings.METHODS`), seed.

    Raises:
      UserError: There is no such sweep, or its plan cannot be read.
    """
    folder = sweep_folder(results_root, sweep)
    plan = PlanRecord.read(folder)
    if plan is None:
        plans = results_root.glob(f"sweeps/*/{PlanRecord.NAME}")
        known = sorted(path.parent.name for path in plans)
        raise UserError(
            f"no sweep {sweep!r} under {results_root}: expected {PlanRecord.path(folder)}; "
            f"sweeps there: {', '.join(known) or 'none, run `make sweep` first'}"
        )
    loaded = [load_trial(results_root, name) for name in dict.fromkeys(plan.trials)]
    rows = with_same_keys([trial.row for trial in loaded])
    trials = [replace(trial, row=row) for trial, row in zip(loaded, rows, strict=True)]
    return Sweep(
        name=sweep,
        command=plan.command,
        created=plan.created,
        trials=tuple(sorted(trials, key=lambda trial: sort_key(trial.row))),
    )


def load_trial(results_root: Path, name: str) -> Trial:
    """Reads one trial; what is missing or damaged becomes its status and reason.

    Args:
      results_root: The results root.
      name: The trial's folder name.

    Returns:
      The trial: finished if it has a result, else failed if it says why, else skipped.
    """
    folder = trial_folder(results_root, name)
    record, record_problem = TrialRecord.look(folder)
    result, result_problem = ResultRecord.look(folder)
    failure, failure_problem = FailureRecord.look(folder)
    curves, _ = CurvesRecord.look(folder)
    training, _ = TrainingRecord.look(folder)
    audit, _ = AuditRecord.look(folder)
    row: Row = dict.fromkeys(ROW_KEYS)
    if record:
        row |= {key: value for key, value in record.to_value().items() if key in ROW_KEYS}
        row["steps"] = record.num_steps
    row |= {"run_directory": relative_trial(name), "trial": name}
    if result:
        row |= result.to_value() | _dictionary(curves) | _gpu_cost(result, training)
        failure = None
    elif result_problem or failure or failure_problem:
        reason = result_problem or (failure.reason if failure else failure_problem)
        row |= {"status": FAILED, "reason": reason}
    else:
        row |= {"status": SKIPPED, "reason": record_problem or _why_skipped(folder, training)}
    matrix = _confusion(folder / MATRICES) if result else None
    manifest = _manifest(results_root, record)
    class_names = tuple(manifest.class_names) if manifest else ()
    if matrix is not None and len(class_names) != len(matrix):
        class_names = tuple(str(label) for label in range(len(matrix)))
    return Trial(
        row=row,
        settings=record.config if record else {},
        surroundings=surroundings(record, manifest),
        curves=curves,
        confusion=matrix,
        class_names=class_names,
        failure=failure,
        audit=audit,
        notes=_notes(manifest),
    )


def sort_key(row: Row) -> tuple[Any, ...]:
    """Returns what orders rows: data-set family, noise rate, method, seed, the trial's name."""
    rate, seed = row["noise_rate"], row["seed"]
    return (
        family(row),
        math.inf if rate is None else rate,
        str(row["dataset"]),
        method_key(row["method"]),
        math.inf if seed is None else seed,
        str(row["trial"]),
    )


def method_key(method: str | None) -> tuple[int, str]:
    """Returns a sort key: methods in `settings.METHODS`' order, then unknown ones by name."""
    known = list(methods.METHODS)
    return (known.index(method) if method in known else len(known), str(method))


def family(row: Row) -> str:
    """Names what a row has in common with the same data under other noise rates.

    Args:
      row: A row of results.json.

    Returns:
      For example "digits, uniform label noise"; the data set's name as it is if it is no spec.
    """
    parsed = parse_dataset(row)
    if parsed is None:
        return str(row["dataset"] or "unknown data set")
    tail = f", long tail {parsed.imbalance:g}" if parsed.imbalance is not None else ""
    noise = f", {parsed.noise} label noise" if parsed.noise else ""
    return f"{parsed.base}{tail}{noise}"


def parse_dataset(row: Row) -> dataset_spec.DatasetSpec | None:
    """Returns a row's data-set spec, or None if its name is none."""
    try:
        return dataset_spec.parse(str(row["dataset"]))
    except UserError:
        return None


def with_same_keys(rows: Sequence[Row]) -> list[Row]:
    """Gives every row the same keys: the schema's, then whatever else results brought along."""
    extra = sorted({key for row in rows for key in row} - set(ROW_KEYS))
    return [{key: row.get(key) for key in (*ROW_KEYS, *extra)} for row in rows]


def _manifest(root: Path, record: TrialRecord | None) -> ManifestRecord | None:
    if record is None:
        return None
    return ManifestRecord.look(label_sets_folder(root) / record.label_set)[0]


def _dictionary(curves: CurvesRecord | None) -> Row:
    """Returns what the last record of the dictionary says of repetitions; {} without one."""
    names = ("dictionary_repeats", "dictionary_repeated_classes")
    for record in reversed(curves.training if curves else []):
        if names[0] in record:
            return {name: record.get(name) for name in names}
    return {}


def _gpu_cost(result: ResultRecord, training: TrainingRecord | None) -> Row:
    """Computes GPU-hours, GPUs times seconds over 3600, of the whole time that a trial held them.

    Args:
      result: Older ones do not say how many GPUs there were.
      training: Has always said how many replicas there were.

    Returns:
      "num_gpus" and "gpu_hours", None where they cannot be known; 0 on a CPU.
    """
    gpus = result.num_gpus
    if gpus is None and result.device.lower() == "cpu":
        gpus = 0
    elif gpus is None and training:
        gpus = training.num_replicas
    hours = None if gpus is None else gpus * result.total_seconds / 3600
    return {"num_gpus": gpus, "gpu_hours": hours}


def _why_skipped(folder: Path, training: TrainingRecord | None) -> str:
    progress, _ = ProgressRecord.look(folder)
    if progress is None:
        return "not run"
    if training:
        return "trained but not evaluated; run the command again"
    where = f"{progress.phase}, step {progress.step} of {progress.num_steps}"
    return f"not finished ({where}); unless it still runs, the command again resumes it"


def _notes(manifest: ManifestRecord | None) -> tuple[str, ...]:
    try:
        return tuple(describe_notes((manifest and manifest.notes) or {}))
    except (AttributeError, KeyError, TypeError, ValueError):  # damaged
        return ()


def _confusion(path: Path) -> np.ndarray | None:
    try:
        matrix = load_file(path).get("confusion_ema_last")
    except (OSError, SafetensorError):
        return None
    usable = matrix is not None and matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1]
    return matrix if usable else None
