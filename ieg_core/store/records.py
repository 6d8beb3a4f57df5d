# SPDX-License-Identifier: Apache-2.0
"""The JSON files of a results root: their names, their fields, and how to read and write them.

Records can be in a folder or in a bucket. Unknown keys are ignored, so that an older version can
read a newer version's files. A missing key, a value of the wrong type, or content that does not
match its digest (`ieg_core.store.seal`) makes a file damaged; the error names the key. A field
whose default is None is omitted from the file while it is None.

The label set's manifest.json is also a record, declared in `ieg_core.data.label_set`.
"""

import functools
import json
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from ieg_core.errors import UserError
from ieg_core.experiment.config import Config, from_dict
from ieg_core.host.files import writable, write_bytes_atomic
from ieg_core.store import gcs
from ieg_core.store.seal import parse_json, read_file, seal, shortened, unseal

Place = Path | str
"""A folder, or gs://bucket/folder."""

_MAX_INT = 2**63


class Record:
    """Base of the records: frozen dataclasses whose fields are the keys of a JSON object.

    Attributes:
      NAME: The file's path relative to the folder it describes, with {} for each part of its key.
    """

    NAME: ClassVar[str]

    @classmethod
    def name(cls, *key: object) -> str:
        """Returns the file's path relative to the folder it describes."""
        return cls.NAME.format(*key)

    @classmethod
    def path(cls, folder: Path, *key: object) -> Path:
        """Returns the file's path."""
        return folder / cls.name(*key)

    @classmethod
    def exists(cls, folder: Path, *key: object) -> bool:
        """Returns whether a folder has the file, and it is readable and undamaged."""
        return cls.look(folder, *key)[0] is not None

    @classmethod
    def read(cls, place: Place, *key: object) -> Self | None:
        """Reads the file from a folder or gs://…; None if there is none.

        Raises:
          UserError: When the file is damaged, or the bucket cannot be read.
        """
        return cls.load(below(place, cls.name(*key)))

    @classmethod
    def load(cls, file: Place) -> Self | None:
        """Reads a file of any name; None if there is none.

        Raises:
          UserError: When the file is damaged or unreadable, or the bucket cannot be read.
        """
        if gcs.is_url(str(file)):
            content = gcs.read(str(file))
            return cls.decode(content[0], str(file)) if content else None
        try:
            return cls.decode(read_file(Path(file)), str(file))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UserError(
                f"{file} cannot be read ({error.strerror}): expected a readable file; mend its "
                "permissions, or delete it and run again"
            ) from error

    @classmethod
    def look(cls, place: Place, *key: object) -> tuple[Self | None, str]:
        """Reads the file without raising if it is damaged or unreadable.

        Returns:
          The record, or None if it is missing or unreadable; and why it is unreadable, or "".
        """
        try:
            return cls.read(place, *key), ""
        except UserError as error:
            return None, str(error)

    @classmethod
    def decode(cls, data: bytes, place: str) -> Self:
        """Decodes the file's content.

        Args:
          data: The content.
          place: Where it was read, for errors.

        Raises:
          UserError: When the content is not JSON, does not match its digest, or is not a record of
            this type.
        """
        try:
            value = unseal(parse_json(data))
        except ValueError as error:
            raise _damaged(place, str(error)) from error
        return cls.parse(value, place)

    @classmethod
    def parse(cls, value: object, place: str) -> Self:
        """Converts a JSON value to a record.

        Args:
          value: The decoded JSON.
          place: Where it was read, for errors.

        Raises:
          UserError: When a key is missing, or a value has the wrong type.
        """
        try:
            return typing.cast(Self, _checked(cls, value, ""))
        except _MismatchError as error:
            raise _damaged(place, str(error)) from None

    def to_value(self) -> dict[str, Any]:
        """Returns the JSON object, without fields that are None and have None as default."""
        optional = {field.name for field in fields(typing.cast(Any, self)) if field.default is None}
        return {k: v for k, v in vars(self).items() if v is not None or k not in optional}

    def encode(self) -> bytes:
        """Returns the file's content; raises ValueError for NaN and infinity, not valid in JSON."""
        value = json.loads(json.dumps(self.to_value(), allow_nan=False, default=vars))
        return f"{json.dumps(seal(value), indent=1)}\n".encode()

    def write(self, place: Place, *key: object) -> None:
        """Writes the file to a folder or gs://… atomically.

        Raises:
          UserError: When the folder or the bucket cannot be written.
        """
        file = below(place, self.name(*key))
        if isinstance(file, Path):
            write_bytes_atomic(file, self.encode())
        else:
            gcs.write(file, self.encode())


def below(place: Place, name: str) -> Path | str:
    """Returns a file's path in a folder, or its URL in a bucket."""
    return gcs.join(str(place), name) if gcs.is_url(str(place)) else Path(place) / name


@dataclass(frozen=True, kw_only=True)
class TrialRecord(Record):
    """A planned trial: everything that determines its outcome, and its provenance.

    Attributes:
      trial: The trial's name.
      label_set: The name of its label set.
      base: The base data set.
      config: The resolved configuration (`ieg_core.experiment.config.to_dict`).
      label_set_digest: SHA-256 of the label set.
      code_version: `ieg_core.store.fingerprint.code_version`.
      backend: The framework.
      precision: "float32" or "bfloat16".
      dataset: The data set with its corruption.
      method: The method.
      seed: The seed of all random numbers.
      network: The network.
      recipe: The recipe.
      num_steps: Training steps.
      image_shape: [height, width, channels].
      num_classes: C.
      num_evaluations: Evaluations during training, including the last one.
      num_test_examples: Examples in the test set.
      noise_rate: Requested share of altered labels; None if unknown.
      true_flip_rate: Expected share of wrong labels; None if unknown.
      clean_labels_used: Number of examples whose labels the method trusts.
      versions: Versions of Python and the libraries.
      git_revision: The Git revision; "" outside a checkout.
      network_digest: SHA-256 of a user's network or of the file of initial values; "" for others.
      recipe_steps: Training steps of the recipe.
      changed_settings: Settings that differ from the recipe's.
      data_dir: The absolute data directory where it was planned; commands on finished trials look
        there first.
    """

    NAME = "config.json"

    trial: str
    label_set: str
    base: str
    config: Mapping[str, Any]
    label_set_digest: str
    code_version: str
    backend: str
    precision: str
    dataset: str
    method: str
    seed: int
    network: str
    recipe: str
    num_steps: int
    image_shape: Sequence[int]
    num_classes: int
    num_evaluations: int
    num_test_examples: int
    noise_rate: float | None
    true_flip_rate: float | None
    clean_labels_used: int
    versions: Mapping[str, str]
    git_revision: str
    network_digest: str = ""
    recipe_steps: int | None = None
    changed_settings: Sequence[str] | None = None
    data_dir: str | None = None

    @property
    def settings(self) -> Config:
        """The configuration.

        Raises:
          UserError: When its settings are not those of this version.
        """
        return from_dict(self.config)


@dataclass(frozen=True, kw_only=True)
class LeaseRecord(Record):
    """The past or present owner of a trial (`ieg_core.store.leases`); the key is the attempt.

    Attributes:
      token: Random; distinguishes leases with the same number if the folder was recreated.
      host: The host's name.
      machine: Identifies the running kernel.
      pid: The process id.
      started: When it took the lease, Unix time.
      run: The run's id (`ieg_core.store.runs.RUN_ID`), or "".
      ended: When it released the lease, Unix time.
    """

    NAME = "leases/{:06d}.json"

    token: str
    host: str
    machine: str
    pid: int
    started: float
    run: str = ""
    ended: float | None = None


@dataclass(frozen=True, kw_only=True)
class ProgressRecord(Record):
    """A trial's progress and heartbeat.

    Attributes:
      phase: "starting", "computing features", "training" or "evaluating".
      updated: When this was written, Unix time.
      step: Steps done.
      num_steps: Total steps; 0 if not yet known.
      steps_per_second: Recent rate; 0 if not yet known.
      accuracy_ema: Latest test accuracy of the moving average; None before the first evaluation.
      attempt: The attempt that owns the trial; 0 while its process starts.
      host: The host's name.
      gpu: The GPU; "" on a CPU.
    """

    NAME = "progress.json"

    phase: str
    updated: float
    step: int = 0
    num_steps: int = 0
    steps_per_second: float = 0.0
    accuracy_ema: float | None = None
    attempt: int = 0
    host: str = ""
    gpu: str = ""


@dataclass(frozen=True, kw_only=True)
class CurvesRecord(Record):
    """Training curves of a trial: a mapping from names to values for each logged step.

    Attributes:
      training: Losses and the method's metrics, averaged since the previous logged step.
      evaluations: Accuracies and losses on the test set.
    """

    NAME = "curves.json"

    training: Sequence[Mapping[str, float]]
    evaluations: Sequence[Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class TrainingRecord(Record):
    """The cost of a finished training.

    Attributes:
      steps: Steps done.
      train_seconds: Seconds of training, over all attempts.
      steps_per_second: Rate after compilation.
      total_seconds: Total seconds, including imports and evaluations.
      device: The device's name; "CPU" for a CPU.
      threads: CPU threads.
      num_replicas: Devices that shared a batch.
      num_parameters: Trainable parameters of the network.
      driver: The GPU's driver; "" on a CPU.
      num_gpus: GPUs; 0 on a CPU, None in older records.
      mean_weight_per_class: Mean weight of each class's examples, relative to the mean over all;
        None for a method without weights.
    """

    NAME = "training.json"

    steps: int
    train_seconds: float
    steps_per_second: float
    total_seconds: float
    device: str
    threads: int
    num_replicas: int
    num_parameters: int
    driver: str = ""
    num_gpus: int | None = None
    mean_weight_per_class: Sequence[float | None] | None = None


@dataclass(frozen=True, kw_only=True)
class ResultRecord(Record):
    """A finished trial's row in the results: its settings, accuracies and cost.

    Fields shared with `TrialRecord` and `TrainingRecord` have the same meaning.

    Attributes:
      accuracy_ema_last: Test accuracy of the moving average after the last step, in [0, 1].
      accuracy_ema_best: Highest test accuracy of the moving average.
      accuracy_last: Test accuracy of the parameters after the last step.
      accuracy_best: Highest test accuracy of the parameters.
      top5_ema_last: Top-5 accuracy of the moving average; None for fewer than six classes.
      top5_last: Top-5 accuracy of the parameters.
      balanced_accuracy_ema_last: Mean of the moving average's per-class accuracies.
      per_class_accuracy_ema_last: Accuracy of the moving average by class, [C]; None for a class
        without test examples.
      run_directory: The trial's folder, relative to the results root.
      eval_sets: Accuracies on additional test sets, by name.
    """

    NAME = "result.json"

    trial: str
    dataset: str
    recipe: str
    method: str
    network: str
    seed: int
    noise_rate: float | None
    true_flip_rate: float | None
    clean_labels_used: int
    backend: str
    precision: str
    code_version: str
    versions: Mapping[str, str]
    accuracy_ema_last: float
    accuracy_ema_best: float
    accuracy_last: float
    accuracy_best: float
    top5_ema_last: float | None
    top5_last: float | None
    balanced_accuracy_ema_last: float | None
    per_class_accuracy_ema_last: Sequence[float | None]
    steps: int
    train_seconds: float
    steps_per_second: float
    total_seconds: float
    num_parameters: int
    device: str
    threads: int
    run_directory: str
    driver: str = ""
    num_gpus: int | None = None
    mean_weight_per_class: Sequence[float | None] | None = None
    eval_sets: Mapping[str, Mapping[str, float]] | None = None
    status: str = "finished"
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class FailureRecord(Record):
    """Why a trial failed.

    Attributes:
      phase: "training" or "evaluating".
      reason: Why, in one line.
      step: Steps done.
      log: The traceback, or the last lines of the log; "" if the reason suffices.
    """

    NAME = "failure.json"

    phase: str
    reason: str
    step: int = 0
    log: str = ""


def record_failure(folder: Path, phase: str, reason: str, log: str = "") -> None:
    """Records why a trial failed, with the step from its progress.

    Args:
      folder: The trial's folder.
      phase: See `FailureRecord`.
      reason: See `FailureRecord`.
      log: See `FailureRecord`.
    """
    progress, _ = ProgressRecord.look(folder)
    step = progress.step if progress else 0
    FailureRecord(phase=phase, reason=reason, step=step, log=log).write(folder)


def remove_failure(folder: Path) -> None:
    """Removes a trial's failure, if there is one.

    Raises:
      UserError: When it cannot be removed, for example because it is a folder.
    """
    with writable(folder):
        FailureRecord.path(folder).unlink(missing_ok=True)


@dataclass(frozen=True, kw_only=True)
class EvaluationRecord(Record):
    """Number of a run's pods that have started to evaluate a trial; the key is the run's id."""

    NAME = "evaluations/{}.json"

    attempts: int


@dataclass(frozen=True, kw_only=True)
class AuditRecord(Record):
    """The summary of a trial's label audit.

    Attributes:
      trial: The trial.
      dataset: The data set.
      method: The method.
      seed: The seed.
      class_names: C names.
      formula: How the score is computed.
      belief: The distribution that scores are computed from.
      threshold: Minimum score of a flagged label.
      examples: Audited training examples.
      not_seen: Audited examples without a score.
      flagged: Labels that look wrong.
      transition_estimated: T[true, observed], [C, C].
      clean_labels_known: Whether the true labels are known; if not, the following fields are None.
      wrong: Wrong labels.
      average_precision: Average precision of the score.
      auroc: AUROC of the score.
      precision: Precision of the flagged labels.
      recall: Recall of the flagged labels.
      suggested_right: Share of wrong labels whose suggestion is the true label.
      transition_true: T[true, observed] of the true labels, [C, C].
      transition_error: Mean absolute difference of the two matrices.
    """

    NAME = "audit/summary.json"

    trial: str
    dataset: str
    method: str
    seed: int
    class_names: Sequence[str]
    formula: str
    belief: str
    threshold: float
    examples: int
    not_seen: int
    flagged: int
    transition_estimated: Sequence[Sequence[float]]
    clean_labels_known: bool
    wrong: int | None = None
    average_precision: float | None = None
    auroc: float | None = None
    precision: float | None = None
    recall: float | None = None
    suggested_right: float | None = None
    transition_true: Sequence[Sequence[float]] | None = None
    transition_error: float | None = None


@dataclass(frozen=True, kw_only=True)
class PlanRecord(Record):
    """A sweep's plan, in the sweep's folder.

    Attributes:
      sweep: The sweep's name.
      command: The command that repeats the request.
      request: The request (`ieg_core.sweep.request.SweepRequest`).
      trials: The names of its trials, longest training first.
      created: When it was first planned, ISO 8601 in UTC.
    """

    NAME = "plan.json"

    schema: Literal[1] = 1
    sweep: str
    command: str
    request: Mapping[str, Any]
    trials: Sequence[str]
    created: str


def earlier_version(root: Place, sign: str) -> UserError:
    """Builds the error for a results root that an earlier version wrote.

    Args:
      root: The results root.
      sign: What identifies it as such.

    Returns:
      The error, for the caller to raise.
    """
    where = f"{root} is a results root of an earlier version (it has {sign})"
    if gcs.is_url(str(root)):
        return UserError(f"{where}: copy it to a folder and convert it with `ieg migrate FOLDER`")
    return UserError(f"{where}: convert it with `ieg migrate {root}`")


@dataclass(frozen=True, kw_only=True)
class ReportRecord(Record):
    """A sweep's machine-readable results, in the sweep's folder.

    Attributes:
      trials: One row per trial, with the keys in `ieg_core.report.trials.ROW_KEYS`.
    """

    NAME = "report/results.json"

    schema: Literal[1] = 1
    trials: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class AcceptedRun:
    """A run that a person accepted.

    Attributes:
      namespace: Its part of the results root.
      sweep: Its sweep.
      accepted: When, ISO 8601 in UTC.
    """

    namespace: str
    sweep: str
    accepted: str


@dataclass(frozen=True, kw_only=True)
class AcceptedRecord(ReportRecord):
    """The rows that a schedule's next runs are compared with; the key is the schedule."""

    NAME = "accepted/{}.json"

    run: AcceptedRun


@dataclass(frozen=True, kw_only=True)
class VerdictRecord(Record):
    """Comparison of a sweep with the results to reproduce, in the sweep's folder.

    Attributes:
      schedule: The schedule; "" for none.
      verdicts: Each `ieg_core.report.reproduction.Verdict` with its text.
    """

    NAME = "report/verdict.json"

    schema: Literal[1] = 1
    schedule: str
    verdicts: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class RunRecord(Record):
    """The trials of a pipeline run; the key is the run's label.

    Attributes:
      sweep: The sweep.
      trials: The trials of this run.
      part: The number of this run within the sweep, from 1.
      parts: Number of runs that share the sweep.
    """

    NAME = "runs/{}.json"

    schema: Literal[1] = 1
    sweep: str
    trials: Sequence[str]
    part: int
    parts: int


@dataclass(frozen=True, kw_only=True)
class LatestRecord(Record):
    """The most recently reported sweep; in buckets only, since folders have a link instead."""

    NAME = "latest.json"

    sweep: str


@dataclass(frozen=True, kw_only=True)
class RatesRecord(Record):
    """Steps per second of a plain step on this machine, by the settings that affect them."""

    NAME = "measured.json"

    rates: Mapping[str, float]

    @classmethod
    def parse(cls, value: object, place: str) -> Self:
        """Reads the file, whose content is the bare mapping."""
        return super().parse({"rates": value}, place)

    def to_value(self) -> dict[str, Any]:
        """Returns the mapping."""
        return dict(self.rates)


@dataclass(frozen=True)
class Finding(Record):
    """The result of a doctor's check; the key is the doctor's run and the check.

    Attributes:
      check: The check's name.
      ok: Whether the check passed.
      text: The finding, in one line.
    """

    NAME = "doctor/{}/{}.json"

    check: str
    ok: bool
    text: str

    @property
    def line(self) -> str:
        """The finding, formatted for people."""
        return f"{'ok  ' if self.ok else 'FAIL'} {self.check}: {self.text}"


class _MismatchError(ValueError):
    """A value does not have the type that its field declares."""

    def __init__(self, name: str, value: object, expected: str) -> None:
        received = "nothing" if value is MISSING else shortened(value)
        super().__init__(f"{f'{name}: ' if name else ''}received {received}, expected {expected}")


def _damaged(place: str, reason: str) -> UserError:
    return UserError(f"{place} is damaged ({reason}): delete it and run again")


_type_hints = functools.cache(typing.get_type_hints)


def _checked(kind: Any, value: Any, name: str) -> Any:
    """Converts a JSON value to the type that a field declares.

    Raises:
      _MismatchError: When it has another type.
    """
    if kind is Any:
        return value
    if is_dataclass(kind):
        return _object(kind, value, name)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:  # always with None, the only kind of union in use
        return None if value is None else _checked(arguments[0], value, name)
    if origin is Literal and value in arguments:
        return value
    if origin is Sequence and isinstance(value, list):
        return [_checked(arguments[0], each, f"{name}[{i}]") for i, each in enumerate(value)]
    if origin is Mapping and isinstance(value, dict):
        return {key: _checked(arguments[1], each, f"{name}.{key}") for key, each in value.items()}
    if type(value) is int and abs(value) >= _MAX_INT:
        raise _MismatchError(name, value, "a number of at most 63 bits")
    if kind is float and type(value) in (int, float) and math.isfinite(value):
        return value
    if kind in (bool, int, str) and type(value) is kind:
        return value
    raise _MismatchError(name, value, _described(kind))


def _object(kind: Any, value: Any, name: str) -> Any:
    if not isinstance(value, dict):
        raise _MismatchError(name, value, "an object")
    hints, values = _type_hints(kind), {}
    for field in fields(kind):
        inner = f"{name}.{field.name}" if name else field.name
        if field.name in value:
            values[field.name] = _checked(hints[field.name], value[field.name], inner)
        elif field.default is MISSING:
            raise _MismatchError(inner, MISSING, _described(hints[field.name]))
    return kind(**values)


def _described(kind: Any) -> str:
    """Returns the JSON name of a declared type."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        return f"{_described(arguments[0])} or null"
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin is Sequence:
        return f"a list of {_described(arguments[0])}"
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}
    return names.get(kind, "an object")
