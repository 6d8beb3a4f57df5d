# SPDX-License-Identifier: Apache-2.0
"""One trial of a sweep, from its folder: train it to the end, then evaluate it."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from ieg_core import backend
from ieg_core.data.base import Source
from ieg_core.data.label_set import LabelSet, load_label_set
from ieg_core.data.open import open_source
from ieg_core.errors import UserError
from ieg_core.experiment.config import Config
from ieg_core.experiment.networks import source_digest
from ieg_core.host import machine
from ieg_core.host.files import write_bytes_atomic
from ieg_core.host.runtime import REQUIRE_GPU, Runtime, chosen_backend, is_gpu_required
from ieg_core.methods import registry
from ieg_core.models import zoo
from ieg_core.store.layout import (
    EXAMPLES,
    MATRICES,
    MODEL,
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
from ieg_core.training.step import initial_state
from ieg_core.training.streaming import LazyImages
from ieg_core.training.tensorboard import Curves, open_events

REPORT_SECONDS = 1.0

ReportProgress = Callable[..., None]
"""Writes progress.json, see `ieg_core.store.leases.beating`."""


def open_trial(
    root: Path, trial: str, data_dir: Path
) -> tuple[TrialRecord, Config, LabelSet, Source]:
    """Reads what a trial was planned to be.

    Returns:
      Its record, its configuration, its label set, and the images under that.

    Raises:
      UserError: There is no such trial, or its data are missing or altered.
    """
    record = read_planned(root, trial)
    config = record.settings
    if record.network_digest != source_digest(config.network):
        raise UserError(
            f"the network {config.network!r} has changed since {trial} was planned: plan it again, "
            "which makes another trial of it"
        )
    source = open_source(record.base, data_dir, config.images)
    label_set = load_label_set(label_sets_folder(root) / record.label_set, source)
    return record, config, label_set, source


def require_promised_gpu() -> None:
    """Does nothing where no GPU was promised, or one is there.

    Raises:
      UserError: The framework sees none: on the CPU the trial would take days and cost as much.
    """
    if is_gpu_required() and not backend.accelerators():
        driver = machine.driver_version()
        raise UserError(
            f"{REQUIRE_GPU} is set, but {chosen_backend()} sees no GPU (nvidia-smi: "
            f"{f'driver {driver}' if driver else 'no driver found'}): check the task's GPU "
            "request, the node's driver and that the image is the one for GPUs"
        )


def train_here(
    root: Path,
    lease: Lease,
    data_dir: Path,
    runtime: Runtime,
    on_step: Callable[[StepReport], None],
    report_progress: ReportProgress,
) -> None:
    """Trains a trial in this process, evaluates it, and writes all its files, result.json last.

    Args:
      root: The results root.
      lease: This attempt at the trial.
      data_dir: Where base data sets lie.
      runtime: How to compute it.
      on_step: Called with every report of the loop.
      report_progress: Writes progress.json.

    Raises:
      UserError: See `open_trial`, `require_exportable` and `training.loop.train`.
      DivergedError: A loss term is not finite.
      SupersededError: A later attempt has taken the trial over.
    """
    folder, trial = lease.folder, lease.folder.name
    began = time.monotonic()
    backend.start(runtime)
    require_promised_gpu()  # before the data: to open them may take minutes
    record, config, label_set, source = open_trial(root, trial, data_dir)
    require_exportable(config, label_set)
    has_gpu = backend.accelerators() > 0
    gpu = backend.device_description() if has_gpu else ""
    report_progress(gpu=gpu, num_steps=record.num_steps)
    reported = 0.0
    resumed = checkpoint.read_progress(folder)
    with open_events(folder / "tensorboard", resumed.step if resumed else 0) as events:
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
        found, visits = trained.history["weight"], trained.history["visits"]
        weights = mean_weight_per_class(found, visits, label_set)
    training = TrainingRecord(
        steps=record.num_steps,
        train_seconds=trained.train_seconds,
        steps_per_second=trained.steps_per_second,
        total_seconds=trained.earlier_seconds + time.monotonic() - began,
        device=trained.device,
        driver=machine.driver_version() if has_gpu else "",
        threads=runtime.threads,
        num_replicas=runtime.num_replicas,
        num_gpus=runtime.num_replicas if has_gpu else 0,
        num_parameters=int(sum(np.size(param) for param in trained.state["params"])),
        mean_weight_per_class=weights,
    )
    require_current(lease)
    training.write(folder)
    if len(trained.history) > 1:
        write_bytes_atomic(folder / EXAMPLES, save(dict(trained.history)))
    # The state is still on the device: to evaluate it in a process of its own would cost more
    # than a short training's overhead is allowed to.
    raw, averaged = trained.evaluation, trained.evaluation_ema
    _write_result(lease, record, training, trained.curves, raw, averaged, trained.eval_sets)


def evaluate_here(
    root: Path, lease: Lease, data_dir: Path, runtime: Runtime, report_progress: ReportProgress
) -> None:
    """Evaluates a trained trial again from its checkpoint; writes matrices and result.json.

    Raises:
      UserError: The trial is not trained yet, or see `open_trial`.
      SupersededError: A later attempt has taken the trial over.
    """
    folder, trial = lease.folder, lease.folder.name
    record, config, label_set, source = open_trial(root, trial, data_dir)
    training = TrainingRecord.read(folder)
    if training is None:
        raise UserError(f"{trial} is not trained to the end yet: run ieg train, or make sweep")
    backend.start(dataclasses.replace(runtime, num_replicas=1))
    report_progress(step=training.steps, num_steps=record.num_steps)
    if config.head is not None:
        result = evaluate_head(folder, config, label_set, source)
        measured = CurvesRecord.read(folder)
        if measured is None:
            raise UserError(f"{folder} has no {CurvesRecord.NAME}: train the trial again")
        curves = {"training": measured.training, "evaluations": measured.evaluations}
        _write_result(lease, record, training, curves, result, result, {})
        return
    model = zoo.build(config.network, label_set.num_classes, label_set.image_shape)
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
    """Writes what was requested, what it reached and what it cost."""
    matrices = {"confusion_ema_last": averaged.confusion, "confusion_last": raw.confusion}
    require_current(lease)
    write_bytes_atomic(lease.folder / MATRICES, save(matrices))
    evaluations = curves["evaluations"]
    result = ResultRecord(
        trial=record.trial,
        dataset=record.dataset,
        recipe=record.recipe,
        method=record.method,
        network=record.network,
        seed=record.seed,
        noise_rate=record.noise_rate,
        true_flip_rate=record.true_flip_rate,
        clean_labels_used=record.clean_labels_used,
        backend=record.backend,
        precision=record.precision,
        code_version=record.code_version,
        versions=record.versions,
        accuracy_ema_last=averaged.accuracy,
        accuracy_ema_best=max(each["accuracy_ema"] for each in evaluations),
        accuracy_last=raw.accuracy,
        accuracy_best=max(each["accuracy"] for each in evaluations),
        top5_ema_last=averaged.top5,
        top5_last=raw.top5,
        balanced_accuracy_ema_last=averaged.balanced_accuracy,
        per_class_accuracy_ema_last=list(averaged.per_class),
        steps=training.steps,
        train_seconds=training.train_seconds,
        steps_per_second=training.steps_per_second,
        total_seconds=training.total_seconds,
        num_parameters=training.num_parameters,
        device=training.device,
        driver=training.driver,
        threads=training.threads,
        num_gpus=training.num_gpus,
        mean_weight_per_class=training.mean_weight_per_class,
        run_directory=relative_trial(record.trial),
        eval_sets=sets or None,
    )
    require_current(lease)
    result.write(lease.folder)
