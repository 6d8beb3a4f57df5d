# SPDX-License-Identifier: Apache-2.0
"""Trainings on CIFAR-10 that stop in time and continue from their checkpoint in the next call."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ieg_core.data.base import Source, Split, in_memory_source
from ieg_core.data.label_set import LabelSet, draw_labels
from ieg_core.data.open import open_source
from ieg_core.errors import UserError
from ieg_core.experiment.config import Config
from ieg_core.experiment.dataset_spec import parse
from ieg_core.experiment.overrides import override
from ieg_core.host.files import write_bytes_atomic
from ieg_core.host.runtime import Runtime
from ieg_core.recipes import build
from ieg_core.recipes.cifar import CIFAR
from ieg_core.store import leases

COLLAPSE = ("cifar10_uniform_0.8", "ieg")
ROWS = tuple(
    dict.fromkeys(
        (figure.dataset, figure.method)
        for figure in CIFAR.figures
        if figure.dataset.startswith("cifar10_")
    )
)
"""Data set and method of the papers' rows on CIFAR-10."""

RESERVED_SECONDS = 5.0
KEPT_ROWS = 50
MOST_FREQUENT = "most_frequent_pseudo_label"


class _StoppedError(Exception):
    """Ends a training between two compiled calls."""


def pack(data_dir: Path, path: Path, images: int) -> None:
    """Writes the first images of CIFAR-10 and their labels as one file, to be carried.

    Args:
      data_dir: The folder of the base data sets.
      path: The file to write, .npz.
      images: Training images to keep, from the start of the official order; a fifth as many test
        images. 0 keeps all.

    Raises:
      UserError: When CIFAR-10 is not in the folder.
    """
    source = open_source("cifar10", data_dir)
    arrays = {}
    for split, labels, read, count in (
        ("train", source.train_labels, source.train_images, images),
        ("test", source.test_labels, source.test_images, images // 5),
    ):
        ids = np.arange(len(labels))[: count or None]
        arrays[f"{split}_labels"] = labels[ids]
        arrays[f"{split}_images"] = read(ids).transpose(0, 3, 1, 2)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_bytes_atomic(path, buffer.getvalue())


def open_packed(path: Path) -> Source:
    """Opens CIFAR-10 from a file that `pack` wrote, or from the folder of the base data sets.

    Raises:
      UserError: When there is neither.
    """
    if not path.is_file():
        return open_source("cifar10", path)
    try:
        with np.load(path) as arrays:
            train, test = (
                Split(arrays[f"{split}_images"], arrays[f"{split}_labels"])
                for split in ("train", "test")
            )
    except (ValueError, KeyError, OSError) as error:
        raise UserError(
            f"{path} is not a packed CIFAR-10 ({error}): write it with --pack"
        ) from error
    return in_memory_source("cifar10", "packed", str(path), train, test)


def random_source(images: int) -> Source:
    """Returns random images with the labels 0 … 9 in turn, for a rehearsal without data."""
    rng = np.random.default_rng(0)
    train, test = (
        Split(
            rng.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8),
            np.arange(count, dtype=np.int32) % 10,
        )
        for count in (images, images // 5)
    )
    return in_memory_source("cifar10", "random", "random numbers", train, test)


def papers_config(dataset: str, method: str, network: str, steps: int, batch_size: int) -> Config:
    """Returns the papers' configuration of a row of the table.

    Args:
      dataset: Name of a data set.
      method: Name of a method.
      network: Name of a network.
      steps: Length of the schedule; 0 for the papers'.
      batch_size: Examples in a step.
    """
    config = build.build_config(
        parse(dataset), method, recipe="cifar", network=network, num_steps=steps
    )
    return override(config, [f"batch_size={batch_size}"])


def label_set_of(config: Config, source: Source) -> LabelSet:
    """Draws a configuration's labels and probe, as `prepare` does, and keeps them in memory."""
    spec = parse(config.dataset)
    height, width, channels = source.image_shape
    return LabelSet(
        name=str(spec),
        spec=spec,
        seed=config.seed,
        num_classes=len(source.class_names),
        class_names=source.class_names,
        image_shape=(height, width, channels),
        digest="",
        **draw_labels(spec, config.seed, config.probe_per_class, source, None),
    )


def continue_training(
    config: Config,
    source: Source,
    folder: Path,
    left: Callable[[], float],
    call_steps: int,
    until: int = 0,
) -> dict[str, Any]:
    """Trains on from the folder's checkpoint until the end, or until the time is up.

    Args:
      config: The configuration.
      source: CIFAR-10, or a part of it.
      folder: The folder of the checkpoint.
      left: Returns the seconds left.
      call_steps: Steps of a compiled call.
      until: The step at which to stop for now; 0 for the end of the schedule.

    Returns:
      "finished", "train_images", "first_step" of this call, and of `summarize` the rest.
    """
    from ieg_core.training import checkpoint, loop  # imports Keras

    latest: list[Any] = []

    def report(step_report: Any) -> None:
        latest[:] = [step_report]
        step, last = step_report.step, step_report.num_steps
        if step < last and (left() < RESERVED_SECONDS or 0 < until <= step):
            raise _StoppedError

    label_set = label_set_of(config, source)
    # A checkpoint after each compiled call: none of a GPU's minutes is spent twice.
    runtime = Runtime(steps_per_execution=call_steps, checkpoint_seconds=0.0)
    with leases.owned(folder) as lease:
        progress = checkpoint.read_progress(folder)
        try:
            done = loop.train(config, label_set, source, lease, folder.name, runtime, report)
            finished = True
            if progress and not latest:  # it had ended before its outcome was written
                accuracy, last = done.evaluation_ema.accuracy, progress.step
                latest.append(loop.StepReport(last, last, 0.0, accuracy, done.curves, None))
        except _StoppedError:
            finished = 0 < until <= latest[0].step
    return {
        "finished": finished,
        "train_images": len(label_set.noisy_labels),
        "first_step": progress.step if progress else 0,
        **summarize(latest[0]),
    }


def summarize(report: Any) -> dict[str, Any]:
    """Returns what an outcome keeps of a `training.loop.StepReport`.

    Args:
      report: The report.

    Returns:
      "step", "num_steps", "steps_per_second", the test "accuracy" of the averaged parameters at the
      latest evaluation (None before the first), and "pseudo_labels", at most about KEPT_ROWS
      triples: a step, and of the pseudo-labels in the steps of that call the share that is right
      and that of the most frequent class.
    """
    rows = [
        (row["step"], row["pseudo_label_accuracy"], row[MOST_FREQUENT])
        for row in report.curves["training"]
        if MOST_FREQUENT in row
    ]
    stride = max(1, len(rows) // KEPT_ROWS)
    return {
        "step": report.step,
        "num_steps": report.num_steps,
        "steps_per_second": report.steps_per_second,
        "accuracy": report.accuracy_ema,
        "pseudo_labels": rows[stride - 1 :: stride],
    }
