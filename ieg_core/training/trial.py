# SPDX-License-Identifier: Apache-2.0
"""Training and evaluation of one planned trial in the current process."""

import dataclasses
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from ieg_core import backend
from ieg_core.data.base import Source
from ieg_core.data.label_set import LabelSet, load_label_set
from ieg_core.data.open import open_source
from ieg_core.errors import UserError
from ieg_core.experiment.config import Config, network_digest
from ieg_core.host import machine
from ieg_core.host.files import write_bytes_atomic
from ieg_core.host.runtime import (
    REQUIRE_GPU,
    WARNING,
    Runtime,
    chosen_backend,
    is_gpu_required,
)
from ieg_core.methods import registry
from ieg_core.store import arrays, fingerprint
from ieg_core.store.layout import (
    EXAMPLES,
    MATRICES,
    MODEL,
    TENSORBOARD,
    label_sets_folder,
    read_planned,
    relative_trial,
)
from ieg_core.store.leases import Lease, require_current
from ieg_core.store.records import CurvesRecord, ResultRecord, TrainingRecord, TrialRecord
from ieg_core.training import checkpoint, history
from ieg_core.training.diagnostics import mean_weight_per_class
from ieg_core.training.evaluation import Evaluation, build_predictor, measure, measure_sets
from ieg_core.training.export import export_model, require_exportable
from ieg_core.training.head_trial import evaluate_head, train_on_features
from ieg_core.training.loop import StepReport, train
from ieg_core.training.pictures import confusion_picture, first_views
from ieg_core.training.step import build_model, initial_state
from ieg_core.training.streaming import LazyImages
from ieg_core.training.tensorboard import Curves, open_events

REPORT_SECONDS = 1.0

ReportProgress = Callable[..., None]
"""The type of the function that writes progress.json, see `ieg_core.store.leases.beating`."""


def open_trial(
    root: Path, trial: str, data_dir: Path
) -> tuple[TrialRecord, Config, LabelSet, Source]:
    """Opens a planned trial.

    Args:
      root: The results root.
      trial: The trial's name.
      data_dir: Folder of the base data sets.

    Returns:
      The trial's record, its configuration, its label set and its images; the test set is what the
      trial is measured on (`LabelSet.measured`).

    Raises:
      UserError: When there is no such trial, its data are missing or altered, or its network has
        changed since it was planned.
    """
    record = read_planned(root, trial)
    config = record.settings
    if record.network_digest != network_digest(config):
        raise UserError(
            f"the code or file of the network {config.network!r} has changed, expected digest "
            f"{record.network_digest} as when {trial} was planned: plan it again, which makes a "
            "new trial, or restore it"
        )
    source = open_source(record.base, data_dir, config.images)
    label_set = load_label_set(label_sets_folder(root) / record.label_set, source)
    return record, config, label_set, label_set.measured(source)


def require_promised_gpu() -> None:
    """Checks that the framework sees a GPU: one that is required, or else one that was found.

    On a CPU the trial could take days. Prints a warning where a GPU was found but not required.

    Raises:
      UserError: When a GPU is required and the framework sees none.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    is_found = visible not in ("", "-1")
    if backend.accelerators() or not (is_gpu_required() or is_found):
        return
    driver = machine.driver_version()
    seen = (
        f"{chosen_backend()} sees no GPU (nvidia-smi: "
        f"{f'driver {driver}' if driver else 'no driver found'})"
    )
    if is_gpu_required():
        raise UserError(
            f"a GPU is required (by DEVICES or {REQUIRE_GPU}), but {seen}: install the GPU "
            "packages with make setup, or use DEVICES=cpu; in a pod, check the task's GPU "
            "request, the node's driver, and that the image is the GPU image"
        )
    print(f"{WARNING}{seen}, so GPU {visible} stays idle and the trial trains on the CPU")


def train_here(
    root: Path,
    lease: Lease,
    data_dir: Path,
    runtime: Runtime,
    on_step: Callable[[StepReport], None],
    report_progress: ReportProgress,
) -> None:
    """Trains and evaluates a trial in this process, and writes its files, result.json last.

    Args:
      root: The results root.
      lease: This attempt at the trial.
      data_dir: Folder of the base data sets.
      runtime: Threads, replicas, steps per call, seconds between checkpoints.
      on_step: Called with a report after each call of the loop.
      report_progress: Writes progress.json.

    Raises:
      UserError: See `open_trial`, `require_exportable` and `training.loop.train`.
      DivergedError: When a loss term is not finite.
      SupersededError: When a later attempt has taken over the trial.
    """
    folder, trial = lease.folder, lease.folder.name
    began = time.monotonic()
    backend.start(runtime)
    require_promised_gpu()  # before the data, which may take minutes to open
    record, config, label_set, source = open_trial(root, trial, data_dir)
    if config.head is None:
        require_exportable(config, label_set)
    has_gpu = backend.accelerators() > 0
    gpu = backend.device_description() if has_gpu else ""
    report_progress(gpu=gpu, num_steps=record.num_steps)
    reported = 0.0
    resumed = checkpoint.read_progress(folder)
    with open_events(folder / TENSORBOARD, resumed.step if resumed else 0) as events:
        if not events.pictures and config.head is None:
            for tag, picture in first_views(config, label_set, source).items():
                events.add_picture(tag, 0, picture)

        def report_step(report: StepReport) -> None:
            nonlocal reported
            on_step(report)
            events.add_curves(report.curves)
            if report.confusion is not None:
                picture = confusion_picture(report.confusion)
                events.add_picture("test/confusion_matrix", report.step, picture)
            if time.monotonic() - reported >= REPORT_SECONDS or report.step == report.num_steps:
                report_progress(
                    phase="training",
                    step=report.step,
                    num_steps=report.num_steps,
                    steps_per_second=report.steps_per_second,
                    accuracy_ema=report.accuracy_ema,
                )
                _write_curves(folder, report.curves)
                reported = time.monotonic()

        if config.head is None:
            trained = train(config, label_set, source, lease, trial, runtime, report_step)
        else:
            trained = train_on_features(
                config, label_set, source, folder, runtime, report_step, report_progress
            )
    require_current(lease)
    if config.head is None:
        export_model(folder / MODEL, config, label_set, source, trained.state)
    weights = None
    if "weight" in trained.history:
        weights = mean_weight_per_class(
            trained.history["weight"], trained.history["visits"], label_set
        )
    training = TrainingRecord(
        steps=record.num_steps,
        train_seconds=trained.train_seconds,
        steps_per_second=trained.steps_per_second,
        total_seconds=trained.earlier_seconds + time.monotonic() - began,
        device=trained.device,
        driver=machine.driver_version() if has_gpu else "",
        processor=machine.processor_name(),
        versions=fingerprint.environment_versions(),
        threads=runtime.threads,
        num_replicas=runtime.num_replicas,
        num_gpus=runtime.num_replicas if has_gpu else 0,
        num_parameters=int(sum(np.size(param) for param in trained.state["params"])),
        mean_weight_per_class=weights,
    )
    require_current(lease)
    training.write(folder)
    if len(trained.history) > 1:
        write_bytes_atomic(folder / EXAMPLES, arrays.encode(trained.history))
    # Evaluated here, with the state still on the device: a separate process would cost more than
    # the overhead that a short training may have.
    raw, averaged = trained.evaluation, trained.evaluation_ema
    _write_result(lease, record, training, trained.curves, raw, averaged, trained.eval_sets)


def evaluate_here(
    root: Path, lease: Lease, data_dir: Path, runtime: Runtime, report_progress: ReportProgress
) -> None:
    """Evaluates a trained trial from its checkpoint, and writes its matrices and result.json.

    Args:
      root: The results root.
      lease: This attempt at the trial.
      data_dir: Folder of the base data sets.
      runtime: Threads; the evaluation uses one replica.
      report_progress: Writes progress.json.

    Raises:
      UserError: When the trial is not trained yet; see also `open_trial`.
      SupersededError: When a later attempt has taken over the trial.
    """
    folder, trial = lease.folder, lease.folder.name
    record, config, label_set, source = open_trial(root, trial, data_dir)
    training = TrainingRecord.read(folder)
    if training is None:
        raise UserError(f"{trial} is not fully trained: run ieg train or make sweep")
    backend.start(dataclasses.replace(runtime, num_replicas=1))
    report_progress(step=training.steps, num_steps=record.num_steps)
    if config.head is not None:
        result, sets = evaluate_head(folder, config, label_set, source)
        measured = CurvesRecord.read(folder)
        if measured is None:
            raise UserError(f"{folder} has no {CurvesRecord.NAME}: train the trial again")
        curves = {"training": measured.training, "evaluations": measured.evaluations}
        _write_result(lease, record, training, curves, result, result, sets)
        return
    model = build_model(config, label_set.num_classes, label_set.image_shape)
    method = registry.find(config.method)
    template = initial_state(model, method, config, label_set)
    template["history"] = history.start(method, label_set)
    state, progress = checkpoint.load_checkpoint(folder, trial, template)
    predict = build_predictor(model)
    images = LazyImages(source.test_images, len(label_set.test_labels))
    raw, averaged = (
        measure(predict(state[key], state["stats"], images), label_set.test_labels)
        for key in ("params", "ema")
    )
    sets = measure_sets(predict, state, source)
    _write_result(lease, record, training, progress.curves, raw, averaged, sets)


def _write_curves(folder: Path, curves: Curves) -> None:
    training, evaluations = (list(curves[key]) for key in ("training", "evaluations"))
    CurvesRecord(training=training, evaluations=evaluations).write(folder)


def _write_result(
    lease: Lease,
    record: TrialRecord,
    training: TrainingRecord,
    curves: Curves,
    raw: Evaluation,
    averaged: Evaluation,
    sets: Mapping[str, Mapping[str, float]],
) -> None:
    """Writes the trial's confusion matrices and its result.json."""
    matrices = {"confusion_ema_last": averaged.confusion, "confusion_last": raw.confusion}
    require_current(lease)
    write_bytes_atomic(lease.folder / MATRICES, arrays.encode(matrices))
    evaluations = curves["evaluations"]
    trained = {name: value for name, value in vars(training).items() if value is not None}
    known = {**vars(record), **trained}
    names = {field.name for field in dataclasses.fields(ResultRecord)} & known.keys()
    result = ResultRecord(
        **{name: known[name] for name in names},
        accuracy_ema_last=averaged.accuracy,
        accuracy_ema_best=max(each["accuracy_ema"] for each in evaluations),
        accuracy_last=raw.accuracy,
        accuracy_best=max(each["accuracy"] for each in evaluations),
        top5_ema_last=averaged.top5,
        top5_last=raw.top5,
        balanced_accuracy_ema_last=averaged.balanced_accuracy,
        per_class_accuracy_ema_last=list(averaged.per_class),
        run_directory=relative_trial(record.trial),
        eval_sets=sets or None,
    )
    require_current(lease)
    result.write(lease.folder)
