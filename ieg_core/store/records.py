# SPDX-License-Identifier: Apache-2.0
"""The JSON files of a results root: their names and their fields (`ieg_core.store.record`)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from ieg_core.errors import UserError
from ieg_core.experiment.config import Config, from_dict
from ieg_core.host.files import writable
from ieg_core.store import gcs
from ieg_core.store.record import Place, Record
from ieg_core.store.seal import seal


@dataclass(frozen=True, kw_only=True)
class ManifestRecord(Record):
    """What a label set was made of, and what came out.

    Attributes:
      format: Version of the format.
      spec: The data set with its corruption.
      seed: The seed of corruption and probe.
      probe_per_class: Clean examples of each class that were set aside.
      base: The base data set.
      base_version: Its version.
      base_digest: Its digest.
      num_classes: C.
      class_names: C names, by class number.
      image_shape: [height, width, channels].
      class_counts: Examples by class, each [C]: "clean" and "noisy" count the kept examples, probe
        included, by that label; "train" counts by noisy label, "probe" by clean label, and
        "validation", only where there is one, by noisy label.
      clean_labels_known: Whether the true labels are known. If not, the clean ones are those of the
        label file, or those that the data come with.
      noise_rate: Requested share of altered labels; None where the true labels are not known.
      true_flip_rate: Expected share of wrong labels; None where the true labels are not known.
      realised_flip_rate: Actual share of wrong labels; None where the true labels are not known.
      transition_asked: Requested T[true, observed], [C, C]; None for labels from elsewhere.
      transition_realised: Actual T[true, observed], [C, C].
      versions: Versions of the libraries; not part of the digest.
      digest: SHA-256 over manifest and arrays, hexadecimal.
      notes: What reading the data brought to light (`ieg_core.data.base.Source`).
      labels_file: Name and SHA-256 of the label file.
      soft_labels_of: The trial whose posterior the soft labels are.
      validation_fraction: Requested share of the validation set; None for no validation set.
    """

    NAME = "manifest.json"

    format: int
    spec: str
    seed: int
    probe_per_class: int
    base: str
    base_version: str
    base_digest: str
    num_classes: int
    class_names: Sequence[str]
    image_shape: Sequence[int]
    class_counts: Mapping[str, Sequence[int]]
    clean_labels_known: bool
    noise_rate: float | None
    true_flip_rate: float | None
    realised_flip_rate: float | None
    transition_asked: Sequence[Sequence[float]] | None
    transition_realised: Sequence[Sequence[float]]
    versions: Mapping[str, str]
    digest: str = ""
    notes: Mapping[str, Any] | None = None
    labels_file: Mapping[str, str] | None = None
    soft_labels_of: str | None = None
    validation_fraction: float | None = None

    def encode(self) -> bytes:
        """Returns the file's content: one line a key, not one for each number of a matrix."""
        lines = [f'"{key}": {json.dumps(value)}' for key, value in seal(self.to_value()).items()]
        return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


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
      num_test_examples: Examples in the test set, or in the validation set in its place.
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
      ended: When it released the lease, Unix time.
    """

    NAME = "leases/{:06d}.json"

    token: str
    host: str
    machine: str
    pid: int
    started: float
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
      processor: The CPU's model; None in older records.
      versions: Versions of Python and the libraries in the process that trained; None in older
        records.
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
    processor: str | None = None
    versions: Mapping[str, str] | None = None
    num_gpus: int | None = None
    mean_weight_per_class: Sequence[float | None] | None = None


@dataclass(frozen=True, kw_only=True)
class ResultRecord(Record):
    """A finished trial's row in the results: its settings, accuracies and cost.

    Fields shared with `TrialRecord` and `TrainingRecord` have the same meaning; of fields that both
    have, the training's counts. With a validation set (`Config.validation_fraction`), test
    accuracies are its agreement with its given labels.

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
    processor: str | None = None
    git_revision: str | None = None
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
class AttemptsRecord(Record):
    """Number of a run's pods that have started a step of a trial; the key is the step and the run.

    Of the trials that share a pod, the first one has the record.
    """

    NAME = "attempts/{}-{}.json"

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

    FOLDER: ClassVar[str] = "runs"
    NAME = f"{FOLDER}/{{}}.json"

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

    FOLDER: ClassVar[str] = "doctor"
    NAME = f"{FOLDER}/{{}}/{{}}.json"

    check: str
    ok: bool
    text: str

    @property
    def line(self) -> str:
        """The finding, formatted for people."""
        return f"{'ok  ' if self.ok else 'FAIL'} {self.check}: {self.text}"
