# SPDX-License-Identifier: Apache-2.0
"""One cell of a sweep, from its folder: train it to the end, then evaluate it."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from ieg_core import backend, models, slots
from ieg_core.config import Config, from_dict
from ieg_core.data import load_overlay, open_source
from ieg_core.data.overlay import Overlay
from ieg_core.data.source import Source
from ieg_core.errors import UserError
from ieg_core.methods import METHODS
from ieg_core.network_names import source_digest
from ieg_core.ownership import Claim, require_current
from ieg_core.results import (
    cell_folder,
    overlays_folder,
    read_json,
    write_bytes_atomic,
    write_json_atomic,
)
from ieg_core.runtime import REQUIRE_GPU, Runtime, chosen_backend, is_gpu_required
from ieg_core.training import checkpoint, history
from ieg_core.training.diagnostics import mean_weight_per_class
from ieg_core.training.evaluation import Evaluation, build_predictor, measure, measure_sets
from ieg_core.training.export import export_model, require_exportable
from ieg_core.training.feed import LazyImages
from ieg_core.training.loop import Moment, train
from ieg_core.training.pictures import confusion_picture, first_views
from ieg_core.training.step import initial_state
from ieg_core.training.tensorboard import open_events

TELL_SECONDS = 1.0

Tell = Callable[..., None]
"""Writes progress.json, see `ieg_core.heartbeat.beating`."""


def open_cell(root: Path, cell: str, data_dir: Path) -> tuple[Any, Config, Overlay, Source]:
    """Reads what a cell was planned to be.

    Returns:
      What config.json holds, the configuration, the prepared data set, and the images under it.

    Raises:
      UserError: There is no such cell, or its data are missing or altered.
    """
    record = read_json(cell_folder(root, cell) / "config.json")
    if record is None:
        raise UserError(f"there is no cell {cell!r} under {root}: plan it first (make sweep)")
    config = from_dict(record["config"])
    if record.get("network_digest", "") != source_digest(config.network):
        raise UserError(
            f"the network {config.network!r} has changed since {cell} was planned: plan it again, "
            "which makes another cell of it"
        )
    source = open_source(record["base"], data_dir, config.images)
    overlay = load_overlay(overlays_folder(root) / record["overlay"], source)
    return record, config, overlay, source


def require_promised_gpu() -> None:
    """Does nothing where no GPU was promised, or one is there.

    Raises:
      UserError: The framework sees none: on the CPU the cell would take days and cost as much.
    """
    if is_gpu_required() and not backend.accelerators():
        driver = slots.driver_version()
        raise UserError(
            f"{REQUIRE_GPU} is set, but {chosen_backend()} sees no GPU (nvidia-smi: "
            f"{f'driver {driver}' if driver else 'no driver found'}): check the task's GPU "
            "request, the node's driver and that the image is the one for GPUs"
        )


def train_here(
    root: Path,
    claim: Claim,
    data_dir: Path,
    runtime: Runtime,
    watch: Callable[[Moment], None],
    show: Tell,
) -> Mapping[str, Any]:
    """Trains a cell in this process, evaluates it, and writes all its files, result.json last.

    Args:
      root: The results root.
      claim: This attempt at the cell.
      data_dir: Where base data sets lie.
      runtime: How to compute it.
      watch: Called with every moment that the loop tells.
      show: Writes progress.json.

    Returns:
      The cell's row of the results table, as result.json holds it.

    Raises:
      UserError: See `open_cell`, `require_exportable` and `training.loop.train`.
      DivergedError: A loss term is not finite.
      SupersededError: A later attempt has taken the cell over.
    """
    folder, cell = claim.folder, claim.folder.name
    began = time.monotonic()
    backend.start(runtime)
    require_promised_gpu()  # before the data: to open them may take minutes
    record, config, overlay, source = open_cell(root, cell, data_dir)
    require_exportable(config, overlay)
    has_gpu = backend.accelerators() > 0
    gpu = backend.device_description() if has_gpu else ""
    show(gpu=gpu, num_steps=record["num_steps"])
    told = 0.0
    resumed = checkpoint.read_progress(folder)
    with open_events(folder / "tensorboard", resumed.step if resumed else 0) as events:
        if not events.pictures:
            for tag, picture in first_views(config, overlay, source).items():
                events.add_picture(tag, 0, picture)

        def tell(moment: Moment) -> None:
            nonlocal told
            watch(moment)
            events.add_curves(moment.curves)
            if moment.confusion is not None:
                picture = confusion_picture(moment.confusion)
                events.add_picture("test/confusion_matrix", moment.step, picture)
            if time.monotonic() - told >= TELL_SECONDS or moment.step == moment.num_steps:
                show(
                    phase="training",
                    step=moment.step,
                    num_steps=moment.num_steps,
                    steps_per_second=moment.steps_per_second,
                    accuracy_ema=moment.accuracy_ema,
                )
                write_json_atomic(folder / "curves.json", moment.curves)
                told = time.monotonic()

        trained = train(config, overlay, source, claim, cell, runtime, tell)
    require_current(claim)
    export_model(folder / "model.keras", config, overlay, source, trained.state)
    training = {
        "steps": record["num_steps"],
        "train_seconds": trained.train_seconds,
        "steps_per_second": trained.steps_per_second,
        "total_seconds": trained.earlier_seconds + time.monotonic() - began,
        "device": trained.device,
        "driver": slots.driver_version() if has_gpu else "",
        "threads": runtime.threads,
        "num_replicas": runtime.num_replicas,
        "num_gpus": runtime.num_replicas if has_gpu else 0,
        "num_parameters": int(sum(np.size(param) for param in trained.state["params"])),
    }
    if "weight" in trained.history:
        weights, visits = trained.history["weight"], trained.history["visits"]
        training["mean_weight_per_class"] = mean_weight_per_class(weights, visits, overlay)
    require_current(claim)
    write_json_atomic(folder / "training.json", training)
    if len(trained.history) > 1:
        write_bytes_atomic(folder / "examples.safetensors", save(dict(trained.history)))
    # The state is still on the device: to evaluate it in a process of its own would cost more
    # than a short training's overhead is allowed to.
    raw, averaged = trained.evaluation, trained.evaluation_ema
    return _write_result(claim, record, training, trained.curves, raw, averaged, trained.eval_sets)


def evaluate_here(
    root: Path, claim: Claim, data_dir: Path, runtime: Runtime, show: Tell
) -> Mapping[str, Any]:
    """Evaluates a trained cell anew from its checkpoint; writes matrices and result.json.

    Returns:
      The cell's row of the results table, as result.json holds it.

    Raises:
      UserError: The cell is not trained yet, or see `open_cell`.
      SupersededError: A later attempt has taken the cell over.
    """
    folder, cell = claim.folder, claim.folder.name
    record, config, overlay, source = open_cell(root, cell, data_dir)
    training = read_json(folder / "training.json")
    if training is None:
        raise UserError(f"{cell} is not trained to the end yet: run ieg train, or make sweep")
    backend.start(dataclasses.replace(runtime, num_replicas=1))
    show(step=training["steps"], num_steps=record["num_steps"])
    model = models.build(config.network, overlay.num_classes, overlay.image_shape)
    template = initial_state(model, METHODS[config.method], config, overlay)
    template["history"] = history.start(METHODS[config.method], overlay)
    state, progress = checkpoint.load_checkpoint(folder, cell, template)
    predict = build_predictor(model)
    images = LazyImages(source.test_images, len(overlay.test_labels))
    raw, averaged = (
        measure(predict(state[key], state["stats"], images), overlay.test_labels)
        for key in ("params", "ema")
    )
    sets = measure_sets(predict, state, source)
    return _write_result(claim, record, training, progress.curves, raw, averaged, sets)


def _write_result(
    claim: Claim,
    record: Mapping[str, Any],
    training: Mapping[str, Any],
    curves: Mapping[str, Any],
    raw: Evaluation,
    averaged: Evaluation,
    sets: Mapping[str, Mapping[str, float]],
) -> Mapping[str, Any]:
    matrices = {"confusion_ema_last": averaged.confusion, "confusion_last": raw.confusion}
    require_current(claim)
    write_bytes_atomic(claim.folder / "matrices.safetensors", save(matrices))
    row = _row(record, training, curves, raw, averaged)
    if sets:
        row["eval_sets"] = sets
    require_current(claim)
    write_json_atomic(claim.folder / "result.json", row)
    return row


def _row(
    record: Mapping[str, Any],
    training: Mapping[str, Any],
    curves: Mapping[str, Any],
    raw: Evaluation,
    averaged: Evaluation,
) -> dict[str, Any]:
    """Makes a cell's row: what was asked, what it reached, what it cost."""
    evaluations = curves["evaluations"]
    asked = ["cell", "dataset", "recipe", "method", "network", "seed", "noise_rate"]
    asked += ["true_flip_rate", "clean_labels_used", "backend", "precision"]
    asked += ["code_version", "versions"]
    cost = ["steps", "train_seconds", "steps_per_second", "total_seconds"]
    cost += ["num_parameters", "device", "threads"]
    return (
        {name: record[name] for name in asked}
        | {
            "accuracy_ema_last": averaged.accuracy,
            "accuracy_ema_best": max(e["accuracy_ema"] for e in evaluations),
            "accuracy_last": raw.accuracy,
            "accuracy_best": max(e["accuracy"] for e in evaluations),
            "top5_ema_last": averaged.top5,
            "top5_last": raw.top5,
            "balanced_accuracy_ema_last": averaged.balanced_accuracy,
            "per_class_accuracy_ema_last": averaged.per_class,
        }
        | {name: training[name] for name in cost}
        | {"driver": training.get("driver", "")}  # older ones do not say
        | {"num_gpus": training.get("num_gpus")}
        | {"mean_weight_per_class": training.get("mean_weight_per_class")}
        | {"status": "finished", "reason": "", "run_directory": f"cells/{record['cell']}"}
    )
