# SPDX-License-Identifier: Apache-2.0
"""Reads a sweep's trials from the results root; a damaged file affects only its own trial."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from ieg_core.data.image_folder.dataset import describe_notes
from ieg_core.errors import UserError
from ieg_core.experiment import dataset_spec, methods
from ieg_core.host.files import read_json
from ieg_core.report.provenance import surroundings
from ieg_core.store.layout import label_sets_folder, sweep_folder, trial_folder

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
"""The keys of every row of results.json; null for a trial that failed or never ran."""

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
      curves: "training" and "evaluations", each a list with one mapping per record.
      confusion: Counts, int64 [C, C], rows = true class, EMA parameters after the last step.
      class_names: C names; empty if unknown.
      failure: "phase", "step" and "log" of a failed trial.
      audit: The summary of its audit; empty if it was not audited.
      notes: Findings from reading its data, one line each.
      outcome: The files that hold its outcome, each with its `_stamp` from before it was read.
    """

    row: Row
    settings: Mapping[str, Any] = field(default_factory=dict)
    surroundings: Mapping[str, str] = field(default_factory=dict)
    curves: Mapping[str, Any] = field(default_factory=dict)
    confusion: np.ndarray | None = None
    class_names: tuple[str, ...] = ()
    failure: Mapping[str, Any] = field(default_factory=dict)
    audit: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    outcome: tuple[tuple[Path, Stamp], ...] = ()

    @property
    def is_current(self) -> bool:
        """Whether its outcome files are unchanged since they were read."""
        return all(_stamp(path) == stamp for path, stamp in self.outcome)


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
      results_root: The results root, with `sweeps/` and `trials/`.
      sweep: The sweep's name.
      load: The reader of trials; None for a new `cached_loader`.

    Returns:
      The sweep, its trials in the order of `sort_key`.

    Raises:
      UserError: When there is no such sweep, or its plan cannot be read.
    """
    path = sweep_folder(results_root, sweep) / "plan.json"
    if not path.is_file():
        known = sorted(p.parent.name for p in results_root.glob("sweeps/*/plan.json"))
        raise UserError(
            f"no sweep {sweep!r} under {results_root}: expected {path}; "
            f"sweeps there: {', '.join(known) or 'none, run `make sweep` first'}"
        )
    plan, problem = _read(path)
    names = plan.get("trials")
    if problem or not isinstance(names, list):
        raise UserError(
            f"{path} is damaged ({problem or 'it has no list of trials'}): run the sweep again"
        )
    load = load or cached_loader()
    loaded = [load(results_root, str(name)) for name in dict.fromkeys(names)]
    rows = with_same_keys([trial.row for trial in loaded])
    trials = [replace(trial, row=row) for trial, row in zip(loaded, rows, strict=True)]
    return Sweep(
        name=sweep,
        command=str(plan.get("command") or ""),
        created=str(plan.get("created") or ""),
        trials=tuple(sorted(trials, key=lambda trial: sort_key(trial.row))),
    )


def cached_loader() -> Loader:
    """Returns a `load_trial` that reads every trial and every label set's manifest once."""
    return functools.cache(functools.partial(load_trial, read_manifest=functools.cache(_read)))


def load_trial(
    results_root: Path,
    name: str,
    read_manifest: Callable[[Path], tuple[dict[str, Any], str]] | None = None,
) -> Trial:
    """Reads one trial; a missing or damaged file becomes its status and reason.

    Args:
      results_root: The results root.
      name: The trial's folder name.
      read_manifest: The reader of its label set's manifest; None to read the file each time.

    Returns:
      The trial: finished if it has a result, else failed if it has a reason, else skipped.
    """
    folder = trial_folder(results_root, name)
    outcome = [(path, _stamp(path)) for path in (folder / "result.json", folder / "failure.json")]
    settings, settings_problem = _read(folder / "config.json")
    result, result_problem = _read(folder / "result.json")
    failure, failure_problem = _read(folder / "failure.json")
    curves, _ = _read(folder / "curves.json")
    row: Row = dict.fromkeys(ROW_KEYS)
    row |= {key: _finite(settings[key]) for key in ROW_KEYS if key in settings}
    row |= {"steps": settings.get("num_steps"), "run_directory": f"trials/{name}", "trial": name}
    if result:
        row |= _finite(result) | _dictionary(curves) | {"status": FINISHED, "reason": ""}
        row |= _gpu_cost(row, folder / "training.json")
        failure = {}
    elif result_problem:
        row |= {"status": FAILED, "reason": result_problem}
    elif failure or failure_problem:
        row |= {"status": FAILED, "reason": failure.get("reason") or failure_problem or "unknown"}
    else:
        row |= {"status": SKIPPED, "reason": _why_skipped(folder, settings_problem)}
    matrix = _confusion(folder / "matrices.safetensors") if result else None
    manifest, _ = (read_manifest or _read)(
        label_sets_folder(results_root) / str(settings.get("label_set")) / "manifest.json"
    )
    class_names = tuple(str(label) for label in manifest.get("class_names") or ())
    if matrix is not None and len(class_names) != len(matrix):
        class_names = tuple(str(label) for label in range(len(matrix)))
    inner = settings.get("config")
    plain = inner if isinstance(inner, dict) else {}
    audit, _ = _read(folder / "audit" / "summary.json")
    return Trial(
        row=row,
        settings=plain,
        surroundings=surroundings(settings, manifest),
        curves=curves,
        confusion=matrix,
        class_names=class_names,
        failure=failure,
        audit=audit,
        notes=_notes(manifest),
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


def _stamp(path: Path) -> Stamp:
    """Identifies the content of a file that is written atomically; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _read(path: Path) -> tuple[dict[str, Any], str]:
    """Returns (JSON object, ""), or ({}, the problem); an absent file is not a problem."""
    try:
        value = read_json(path)
    except (OSError, UserError) as error:
        return {}, str(error)
    if value is None:
        return {}, ""
    return (value, "") if isinstance(value, dict) else ({}, f"{path} is not a JSON object")


def _dictionary(curves: Mapping[str, Any]) -> Row:
    """Returns the repetitions in the last record of the dictionary; {} if there is none."""
    records = curves.get("training")
    names = ("dictionary_repeats", "dictionary_repeated_classes")
    for record in reversed(records if isinstance(records, list) else []):
        if isinstance(record, dict) and names[0] in record:
            return {name: _finite(record.get(name)) for name in names}
    return {}


def _gpu_cost(row: Row, training: Path) -> Row:
    """Computes GPU-hours = GPUs * seconds / 3600, over all the time that a trial held its GPUs.

    Args:
      row: A finished trial's row. Older ones lack the number of GPUs.
      training: The trial's training.json, which has always had the number of replicas.

    Returns:
      "num_gpus" and "gpu_hours", None where unknown; 0 on a CPU.
    """
    gpus = row["num_gpus"]
    if gpus is None:
        on_cpu = str(row["device"]).lower() == "cpu"
        gpus = 0 if on_cpu else _read(training)[0].get("num_replicas")
    seconds = row["total_seconds"]
    known = isinstance(gpus, int) and isinstance(seconds, int | float)
    return {"num_gpus": gpus, "gpu_hours": gpus * seconds / 3600 if known else None}


def _finite(value: Any) -> Any:
    """Replaces NaN and infinity, which strict JSON lacks, by None."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def _why_skipped(folder: Path, settings_problem: str) -> str:
    if settings_problem:
        return settings_problem
    progress, _ = _read(folder / "progress.json")
    if not progress:
        return "not run"
    if (folder / "training.json").exists():
        return "trained but not evaluated: run the command again"
    where = f"{progress.get('phase')}, step {progress.get('step')} of {progress.get('num_steps')}"
    return f"not finished ({where}): if it is not running, run the command again to resume it"


def _notes(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    try:
        return tuple(describe_notes(manifest.get("notes") or {}))
    except (AttributeError, KeyError, TypeError, ValueError):  # damaged
        return ()


def _confusion(path: Path) -> np.ndarray | None:
    try:
        matrix = load_file(path).get("confusion_ema_last")
    except (OSError, SafetensorError):
        return None
    usable = matrix is not None and matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1]
    return matrix if usable else None
