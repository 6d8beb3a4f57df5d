# SPDX-License-Identifier: Apache-2.0
"""Reads a sweep's trials from the results root; a damaged file affects only its own trial."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ieg_core.data.image_folder.dataset import describe_notes
from ieg_core.errors import UserError
from ieg_core.experiment import dataset_spec, methods
from ieg_core.report.provenance import surroundings
from ieg_core.store import arrays, layout
from ieg_core.store.records import (
    AuditRecord,
    CurvesRecord,
    FailureRecord,
    ManifestRecord,
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
    "most_frequent_pseudo_label",
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
    "processor",
    "threads",
    "run_directory",
    "trial",
    "code_version",
    "git_revision",
    "versions",
)
"""The keys of every row of results.json; null for a trial that failed or never ran."""

VALIDATED = (
    "every accuracy is the agreement with the given labels of a held-out {:.0%} of the training "
    "examples; the test set was not read"
)

FINISHED, FAILED, SKIPPED = "finished", "failed", "skipped"

Row = dict[str, Any]
Stamp = tuple[int, int] | None


@dataclass(frozen=True)
class Trial:
    """One training run as the report shows it.

    Attributes:
      row: Its row of results.json, with every key of `ROW_KEYS`.
      settings: The resolved configuration as nested plain values; empty if unreadable.
      surroundings: What else determines its outcome (`provenance.surroundings`).
      curves: What was measured during its training.
      confusion: Counts, int64 [C, C], rows = true class, EMA parameters after the last step.
      class_names: C names; empty if unknown.
      failure: Why it failed.
      audit: Its audit in numbers; None if it was not audited.
      notes: Findings from reading its data, and its files that cannot be read, one line each.
      outcome: The files that hold its outcome, each with its `file_stamp` from before it was read.
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
    outcome: tuple[tuple[Path, Stamp], ...] = ()

    @property
    def is_current(self) -> bool:
        """Whether its outcome files are unchanged since they were read."""
        return all(file_stamp(path) == stamp for path, stamp in self.outcome)


@dataclass(frozen=True)
class Sweep:
    """A sweep's plan and its trials, sorted by content instead of by when they were planned."""

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
        """Findings from reading the data, each line once."""
        return list(dict.fromkeys(note for trial in self.trials for note in trial.notes))


Loader = Callable[[Path, str], Trial]
"""Reads a trial, given the results root and the name of the trial's folder."""


def load_sweep(results_root: Path, sweep: str, load: Loader | None = None) -> Sweep:
    """Reads the plan of a sweep and everything that its trials wrote.

    Args:
      results_root: The results root, with its sweeps and trials.
      sweep: The sweep's name.
      load: The reader of trials; None for a new `cached_loader`.

    Returns:
      The sweep, its trials in the order of `sort_key`.

    Raises:
      UserError: When there is no such sweep, or its plan cannot be read.
    """
    folder = layout.sweep_folder(results_root, sweep)
    plan = PlanRecord.read(folder)
    if plan is None:
        known = sorted(layout.planned_sweeps(results_root))
        raise UserError(
            f"no sweep {sweep!r} under {results_root}: expected {PlanRecord.path(folder)}; "
            f"sweeps there: {', '.join(known) or 'none, run `make sweep` first'}"
        )
    load = load or cached_loader()
    loaded = [load(results_root, name) for name in dict.fromkeys(plan.trials)]
    rows = with_same_keys([trial.row for trial in loaded])
    trials = [replace(trial, row=row) for trial, row in zip(loaded, rows, strict=True)]
    return Sweep(
        name=sweep,
        command=plan.command,
        created=plan.created,
        trials=tuple(sorted(trials, key=lambda trial: sort_key(trial.row))),
    )


def cached_loader() -> Loader:
    """Returns a `load_trial` that reads every trial and every label set's manifest once."""
    read_manifest = functools.cache(ManifestRecord.look)
    return functools.cache(functools.partial(load_trial, read_manifest=read_manifest))


def load_trial(
    results_root: Path,
    name: str,
    read_manifest: Callable[[Path], tuple[ManifestRecord | None, str]] = ManifestRecord.look,
) -> Trial:
    """Reads one trial; a missing or damaged file becomes its status and reason.

    Args:
      results_root: The results root.
      name: The trial's folder name.
      read_manifest: The reader of a label set's manifest, from the set's folder.

    Returns:
      The trial: finished if it has a result, else failed if it has a reason, else skipped.
    """
    folder = layout.trial_folder(results_root, name)
    files = (ResultRecord.path(folder), FailureRecord.path(folder))
    outcome = [(file, file_stamp(file)) for file in files]
    record, record_problem = TrialRecord.look(folder)
    result, result_problem = ResultRecord.look(folder)
    if result and result.trial != name:
        problem = f"{ResultRecord.path(folder)} belongs to {result.trial}: evaluate {name} again"
        result, result_problem = None, problem
    failure, failure_problem = FailureRecord.look(folder)
    curves, curves_problem = CurvesRecord.look(folder)
    training, training_problem = TrainingRecord.look(folder)
    audit, audit_problem = AuditRecord.look(folder)
    row: Row = dict.fromkeys(ROW_KEYS)
    if record:
        row |= {key: value for key, value in record.to_value().items() if key in ROW_KEYS}
        row["steps"] = record.num_steps
    row |= {"run_directory": layout.relative_trial(name), "trial": name}
    if result:
        row |= result.to_value() | _last_diagnostics(curves) | _gpu_cost(result, training)
        failure = None
    elif result_problem or failure or failure_problem:
        reason = result_problem or (failure.reason if failure else failure_problem)
        row |= {"status": FAILED, "reason": reason}
    else:
        row |= {"status": SKIPPED, "reason": record_problem or _why_skipped(folder, training)}
    matrix, matrix_problem = _confusion(folder / layout.MATRICES) if result else (None, "")
    manifest, manifest_problem = None, ""
    if record:
        place = layout.label_sets_folder(results_root) / record.label_set
        manifest, manifest_problem = read_manifest(place)
    problems = (
        record_problem if result else "",
        curves_problem,
        training_problem,
        audit_problem,
        matrix_problem,
        manifest_problem,
    )
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
        notes=(*_notes(manifest), *filter(None, problems)),
        outcome=tuple(outcome),
    )


def sort_key(row: Row) -> tuple[Any, ...]:
    """Returns the sort key of a row: data-set family, noise rate, method, seed, trial name."""
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
    """Returns the sort key of a method: the order of `METHODS`, then unknown ones by name."""
    known = list(methods.METHODS)
    return (known.index(method) if method in known else len(known), str(method))


def family(row: Row) -> str:
    """Names a row's data set without the noise rate, such as "digits, uniform label noise".

    A name that is not a data-set spec is returned unchanged.
    """
    parsed = parse_dataset(row)
    if parsed is None:
        return str(row["dataset"] or "unknown data set")
    tail = f", long tail {parsed.imbalance:g}" if parsed.imbalance is not None else ""
    noise = f", {parsed.noise} label noise" if parsed.noise else ""
    return f"{parsed.base}{tail}{noise}"


def parse_dataset(row: Row) -> dataset_spec.DatasetSpec | None:
    """Returns a row's data-set spec, or None if its name is not a valid spec."""
    try:
        return dataset_spec.parse(str(row["dataset"]))
    except UserError:
        return None


def with_same_keys(rows: Sequence[Row]) -> list[Row]:
    """Gives every row the same keys: `ROW_KEYS`, then any others that results contain."""
    extra = sorted({key for row in rows for key in row} - set(ROW_KEYS))
    return [{key: row.get(key) for key in (*ROW_KEYS, *extra)} for row in rows]


def file_stamp(path: Path) -> Stamp:
    """Identifies the content of a file that is written atomically; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _last_diagnostics(curves: CurvesRecord | None) -> Row:
    """Returns the last records of the dictionary's repetitions and of how alike labels are."""
    names = ("dictionary_repeats", "dictionary_repeated_classes", "most_frequent_pseudo_label")
    return {
        name: record[name]
        for record in (curves.training if curves else [])
        for name in names
        if name in record
    }


def _gpu_cost(result: ResultRecord, training: TrainingRecord | None) -> Row:
    """Computes GPU-hours = GPUs * seconds / 3600, over all the time that a trial held its GPUs.

    Args:
      result: The trial's result. Older ones lack the number of GPUs.
      training: What its training took, which has always had the number of replicas.

    Returns:
      "num_gpus" and "gpu_hours", None where unknown; 0 on a CPU.
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
        return "trained but not evaluated: run the command again"
    where = f"{progress.phase}, step {progress.step} of {progress.num_steps}"
    return f"not finished ({where}): if it is not running, run the command again to resume it"


def _notes(manifest: ManifestRecord | None) -> tuple[str, ...]:
    if manifest is None:
        return ()
    held_out = manifest.validation_fraction
    measured = () if held_out is None else (f"{manifest.spec}: {VALIDATED.format(held_out)}",)
    try:
        return (*measured, *describe_notes(manifest.notes or {}))
    except (AttributeError, KeyError, TypeError, ValueError):  # damaged
        return measured


def _confusion(path: Path) -> tuple[np.ndarray | None, str]:
    """Returns a trial's matrix, or None; and why it cannot be read, or ""."""
    try:
        return arrays.read(path, "evaluate the trial again")[0].get("confusion_ema_last"), ""
    except FileNotFoundError:
        return None, ""
    except UserError as error:
        return None, str(error)
