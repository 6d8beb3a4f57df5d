# SPDX-License-Identifier: Apache-2.0
"""The JSON files of a results root: what each is called, what it holds, how it is read and written.

A record is read from a folder or from a bucket alike. A key that is not known here is ignored, so
that an older version can read what a newer one wrote; one that is missing or has a value of
another type makes the file damaged, and says which. A field whose default is None is left out of
the file while it is None.

The label set's manifest.json is a record too; `ieg_core.data.label_set` declares it.
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
from ieg_core.host.files import write_bytes_atomic
from ieg_core.store import gcs

Place = Path | str
"""A folder, or gs://bucket/folder."""

SHOWN = 80
"""Characters of a wrong value that an error repeats."""


class Record:
    """Base of the records: frozen dataclasses whose fields are the keys of a JSON object.

    Attributes:
      NAME: The file's name below the folder that it describes, with {} for each part of its key.
    """

    NAME: ClassVar[str]

    @classmethod
    def name(cls, *key: object) -> str:
        """Returns the file's name below the folder that it describes."""
        return cls.NAME.format(*key)

    @classmethod
    def path(cls, folder: Path, *key: object) -> Path:
        """Returns the file's path."""
        return folder / cls.name(*key)

    @classmethod
    def exists(cls, folder: Path, *key: object) -> bool:
        """Returns whether a folder has the file."""
        return cls.path(folder, *key).exists()

    @classmethod
    def read(cls, place: Place, *key: object) -> Self | None:
        """Reads the file below a folder or gs://…; None if there is none.

        Raises:
          UserError: The file is damaged, or the bucket cannot be read.
        """
        return cls.load(below(place, cls.name(*key)))

    @classmethod
    def load(cls, file: Place) -> Self | None:
        """Reads a file of whatever name; None if there is none.

        Raises:
          UserError: The file is damaged, or the bucket cannot be read.
        """
        if gcs.is_url(str(file)):
            found = gcs.read(str(file))
            return cls.decode(found[0], str(file)) if found else None
        try:
            return cls.decode(Path(file).read_bytes(), str(file))
        except FileNotFoundError:
            return None

    @classmethod
    def look(cls, place: Place, *key: object) -> tuple[Self | None, str]:
        """Reads the file where a damaged one must not stop the reader.

        Returns:
          The record, None if there is none or it cannot be read; and why it cannot be read, or "".
        """
        try:
            return cls.read(place, *key), ""
        except (OSError, UserError) as error:
            return None, str(error)

    @classmethod
    def decode(cls, data: bytes, place: str) -> Self:
        """Reads the file's content.

        Args:
          data: The content.
          place: Where it was read, for errors.

        Raises:
          UserError: The content is not JSON, or not that of such a record.
        """
        try:
            value = json.loads(data)
        except ValueError as error:  # not UTF-8, or not JSON
            raise _damaged(place, str(error)) from error
        return cls.parse(value, place)

    @classmethod
    def parse(cls, value: object, place: str) -> Self:
        """Makes a record of a JSON value.

        Args:
          value: What was read.
          place: Where it was read, for errors.

        Raises:
          UserError: A key is missing, or a value is of another type.
        """
        try:
            return typing.cast(Self, _checked(cls, value, ""))
        except _MismatchError as error:
            raise _damaged(place, str(error)) from None

    def to_value(self) -> dict[str, Any]:
        """Returns the JSON object, without the fields that are None by default and in fact."""
        optional = {field.name for field in fields(typing.cast(Any, self)) if field.default is None}
        return {k: v for k, v in vars(self).items() if v is not None or k not in optional}

    def encode(self) -> bytes:
        """Returns the file's content; NaN and infinity are refused, since JSON has neither."""
        text = json.dumps(self.to_value(), indent=1, allow_nan=False, default=vars)
        return f"{text}\n".encode()

    def write(self, place: Place, *key: object) -> None:
        """Writes the file below a folder or gs://…; a reader sees the old content or the new.

        Raises:
          UserError: The folder or the bucket cannot be written.
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
    """What a trial was planned to be: everything that decides its outcome, and where it came from.

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
      seed: The seed of everything that is drawn.
      network: The network.
      recipe: The recipe.
      num_steps: Steps of training.
      image_shape: [height, width, channels].
      num_classes: C.
      num_evaluations: Evaluations during training, the last one included.
      num_test_examples: Examples of the test set.
      noise_rate: Requested share of altered labels; None where it is not known.
      true_flip_rate: Expected share of wrong labels; None where it is not known.
      clean_labels_used: Examples whose labels the method trusts.
      versions: Versions of Python and the libraries.
      git_revision: The checkout's revision; "" outside one.
      network_digest: SHA-256 of a network of the user's own; "" for others.
      recipe_steps: Steps of the recipe.
      changed_settings: Settings that depart from the recipe's.
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

    @property
    def settings(self) -> Config:
        """The configuration.

        Raises:
          UserError: Its settings are not those of this version.
        """
        return from_dict(self.config)


@dataclass(frozen=True, kw_only=True)
class LeaseRecord(Record):
    """Who works on a trial, or worked on it (`ieg_core.store.leases`); the key is the attempt.

    Attributes:
      token: Random; tells the lease from one of the same number in a folder made again.
      host: The host's name.
      machine: What tells the running kernel from others.
      pid: The process.
      started: When it took the lease, Unix time.
      run: The run's id (`ieg_core.store.runs.RUN_ID`), or "".
      ended: When it gave the lease back, Unix time.
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
    """How far a trial is, and its heartbeat.

    Attributes:
      phase: "starting", "computing features", "training" or "evaluating".
      updated: When this was written, Unix time.
      step: Steps done.
      num_steps: Steps in all; 0 if not yet known.
      steps_per_second: Lately; 0 if not yet known.
      accuracy_ema: The latest test accuracy of the moving average; None before the first.
      attempt: The attempt that works on it; 0 while its process starts.
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
    """What was measured while a trial was trained, a mapping of numbers for each logged step.

    Attributes:
      training: Losses and the method's figures, averaged since the step before.
      evaluations: Accuracies and losses on the test set.
    """

    NAME = "curves.json"

    training: Sequence[Mapping[str, float]]
    evaluations: Sequence[Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class TrainingRecord(Record):
    """What a finished training took.

    Attributes:
      steps: Steps done.
      train_seconds: Seconds of training, over all attempts.
      steps_per_second: Once compiled.
      total_seconds: Seconds in all, imports and evaluations included.
      device: The device's name; "CPU" for a processor.
      threads: CPU threads.
      num_replicas: Devices that shared a batch.
      num_parameters: Trained parameters of the network.
      driver: The GPU's driver; "" on a CPU.
      num_gpus: GPUs; 0 on a CPU, None in older records.
      mean_weight_per_class: Mean weight of the examples of each class, in units of the mean over
        all; None for a method without weights.
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
    """A finished trial's row of the results: what was requested, what it reached, what it cost.

    Fields that `TrialRecord` and `TrainingRecord` have too mean the same here.

    Attributes:
      accuracy_ema_last: Test accuracy of the moving average after the last step, in [0, 1].
      accuracy_ema_best: The highest one.
      accuracy_last: Test accuracy of the parameters after the last step.
      accuracy_best: The highest one.
      top5_ema_last: Top-5 accuracy of the moving average; None for fewer than six classes.
      top5_last: Top-5 accuracy of the parameters.
      balanced_accuracy_ema_last: Mean over the classes' accuracies, of the moving average.
      per_class_accuracy_ema_last: [C]; None for a class without test examples.
      run_directory: The trial's folder below the results root.
      eval_sets: Accuracies on further test sets, by the set's name.
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
      log: The traceback, or the last lines of the log; "" where the reason says everything.
    """

    NAME = "failure.json"

    phase: str
    reason: str
    step: int = 0
    log: str = ""


def record_failure(folder: Path, phase: str, reason: str, log: str = "") -> None:
    """Records why a trial failed, at the step that its progress names.

    Args:
      folder: The trial's folder.
      phase: See `FailureRecord`.
      reason: See `FailureRecord`.
      log: See `FailureRecord`.
    """
    progress, _ = ProgressRecord.look(folder)
    step = progress.step if progress else 0
    FailureRecord(phase=phase, reason=reason, step=step, log=log).write(folder)


@dataclass(frozen=True, kw_only=True)
class EvaluationRecord(Record):
    """How many pods of a run have begun to evaluate a trial; the key is the run's id."""

    NAME = "evaluations/{}.json"

    attempts: int


@dataclass(frozen=True, kw_only=True)
class AuditRecord(Record):
    """A trial's label audit in numbers.

    Attributes:
      trial: The trial.
      dataset: The data set.
      method: The method.
      seed: The seed.
      class_names: C names.
      formula: How the score is computed.
      belief: What the scores are made of.
      threshold: From which score on a label is called wrong.
      examples: Audited training examples.
      not_seen: Those of them without a score.
      flagged: Labels that look wrong.
      transition_estimated: T[true, observed], [C, C].
      clean_labels_known: Whether there are true labels to compare with; None in what follows if
        there are none.
      wrong: Wrong labels.
      average_precision: Of the score.
      auroc: Of the score.
      precision: Of the flagged labels.
      recall: Of the flagged labels.
      suggested_right: Share of the wrongly labeled whose suggested label is the true one.
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
      command: The command that asks for it again.
      request: What was requested (`ieg_core.sweep.request.SweepRequest`).
      trials: The names of its trials, the longest first.
      created: When it was planned first, ISO 8601 in UTC.
    """

    NAME = "plan.json"

    schema: Literal[1] = 1
    sweep: str
    command: str
    request: Mapping[str, Any]
    trials: Sequence[str]
    created: str

    @classmethod
    def parse(cls, value: object, place: str) -> Self:
        """Reads a plan; one of an earlier version is refused by the name of what converts it."""
        if isinstance(value, dict) and "cells" in value:
            raise earlier_version(place.rpartition("/sweeps/")[0], "cells in its sweeps' plans")
        return super().parse(value, place)


def earlier_version(root: Place, sign: str) -> UserError:
    """Builds the error for a results root that an earlier version wrote.

    Args:
      root: The results root.
      sign: What shows it.

    Returns:
      The error, to be raised by the caller.
    """
    where = f"{root} is a results root of an earlier version (it has {sign})"
    if gcs.is_url(str(root)):
        return UserError(f"{where}: copy it to a folder, convert that with `ieg migrate FOLDER`")
    return UserError(f"{where}: convert it with `ieg migrate {root}`")


@dataclass(frozen=True, kw_only=True)
class ReportRecord(Record):
    """A sweep's results for programs, in the sweep's folder.

    Attributes:
      trials: A row for each trial; `ieg_core.report.trials.ROW_KEYS` lists what each of them has.
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
    """The rows that a schedule's next runs are held against; the key is the schedule."""

    NAME = "accepted/{}.json"

    run: AcceptedRun


@dataclass(frozen=True, kw_only=True)
class VerdictRecord(Record):
    """How a sweep compares with what was to be reproduced, in the sweep's folder.

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
    """What a run of a pipeline was started for; the key is the run's label.

    Attributes:
      sweep: The sweep.
      trials: The trials of this run.
      part: Which run of the sweep this is, from 1.
      parts: How many runs there are.
    """

    NAME = "runs/{}.json"

    schema: Literal[1] = 1
    sweep: str
    trials: Sequence[str]
    part: int
    parts: int


@dataclass(frozen=True, kw_only=True)
class LatestRecord(Record):
    """The sweep that was reported last; in a bucket only, where a folder has a link."""

    NAME = "latest.json"

    sweep: str


@dataclass(frozen=True, kw_only=True)
class RatesRecord(Record):
    """Steps per second of a plain step on this machine, by what they depend on."""

    NAME = "measured.json"

    rates: Mapping[str, float]

    @classmethod
    def parse(cls, value: object, place: str) -> Self:
        """Reads the file, which is the mapping alone."""
        return super().parse({"rates": value}, place)

    def to_value(self) -> dict[str, Any]:
        """Returns the mapping."""
        return dict(self.rates)


@dataclass(frozen=True)
class Finding(Record):
    """What a check of the doctor found; the key is the doctor's run and the check.

    Attributes:
      check: The check's name.
      ok: Whether all is well.
      text: One line.
    """

    NAME = "doctor/{}/{}.json"

    check: str
    ok: bool
    text: str

    @property
    def line(self) -> str:
        """The finding for people."""
        return f"{'ok  ' if self.ok else 'FAIL'} {self.check}: {self.text}"


class _MismatchError(ValueError):
    """A value is not of the type that its field declares."""

    def __init__(self, name: str, value: object, expected: str) -> None:
        text = "nothing" if value is MISSING else repr(value)
        received = text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
        super().__init__(f"{f'{name}: ' if name else ''}received {received}, expected {expected}")


def _damaged(place: str, reason: str) -> UserError:
    return UserError(f"{place} is damaged ({reason}): delete it and run again")


_type_hints = functools.cache(typing.get_type_hints)


def _checked(kind: Any, value: Any, name: str) -> Any:
    """Returns a JSON value as the type that a field declares.

    Raises:
      _MismatchError: It is of another type.
    """
    if kind is Any:
        return value
    if is_dataclass(kind):
        return _object(kind, value, name)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:  # with None, the one kind of union that there is
        return None if value is None else _checked(arguments[0], value, name)
    if origin is Literal and value in arguments:
        return value
    if origin is Sequence and isinstance(value, list):
        return [_checked(arguments[0], each, f"{name}[{i}]") for i, each in enumerate(value)]
    if origin is Mapping and isinstance(value, dict):
        return {key: _checked(arguments[1], each, f"{name}.{key}") for key, each in value.items()}
    if kind is float and type(value) in (int, float) and math.isfinite(value):
        return value
    if kind in (bool, int, str) and type(value) is kind:
        return value
    raise _MismatchError(name, value, _described(kind))


def _object(kind: Any, value: Any, name: str) -> Any:
    if not isinstance(value, dict):
        raise _MismatchError(name, value, "an object")
    hints, found = _type_hints(kind), {}
    for field in fields(kind):
        inner = f"{name}.{field.name}" if name else field.name
        if field.name in value:
            found[field.name] = _checked(hints[field.name], value[field.name], inner)
        elif field.default is MISSING:
            raise _MismatchError(inner, MISSING, _described(hints[field.name]))
    return kind(**found)


def _described(kind: Any) -> str:
    """Names a declared type as people know it from JSON."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        return f"{_described(arguments[0])} or null"
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin is Sequence:
        return f"a list of {_described(arguments[0])}"
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    return names.get(kind, "an object")
