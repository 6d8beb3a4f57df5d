# SPDX-License-Identifier: Apache-2.0
"""The one training loop: resume, then call after call of compiled steps until the last one.

1. The network, its initial values and the data go to the device.
2. A checkpoint, if there is one, replaces the initial state.
3. Each call runs up to `steps_per_execution` steps on the device, while a thread draws the next
   call's random numbers; no call crosses an evaluation.
4. After a call: a loss that is not finite ends the run, a due evaluation is made, a due checkpoint
   is written, progress is told.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ieg_core import backend, models, schedules
from ieg_core.config import Config
from ieg_core.data.overlay import Overlay
from ieg_core.data.source import Source
from ieg_core.errors import DivergedError, UserError
from ieg_core.length import evaluation_steps, num_steps, steps_per_epoch
from ieg_core.methods import METHODS
from ieg_core.runtime import Runtime
from ieg_core.training import checkpoint, draws
from ieg_core.training.diagnostics import weight_diagnostics
from ieg_core.training.evaluation import Evaluation, build_predictor, measure
from ieg_core.training.step import build_network, build_step, ema_decay, initial_state


@dataclass(frozen=True)
class Moment:
    """What the loop tells after each call.

    Attributes:
      step: Steps done.
      num_steps: Steps in all.
      steps_per_second: Of the calls since this process started, compilation left out; 0 before.
      accuracy_ema: Test accuracy of the averaged parameters at the latest evaluation, if any.
      curves: Everything measured so far, as in curves.json.
    """

    step: int
    num_steps: int
    steps_per_second: float
    accuracy_ema: float | None
    curves: Mapping[str, Sequence[Mapping[str, float]]]


@dataclass(frozen=True)
class Trained:
    """What a finished training hands on.

    Attributes:
      state: The last state, numpy arrays.
      curves: As in curves.json.
      evaluation: Of the raw parameters, last step.
      evaluation_ema: Of the averaged parameters, last step.
      train_seconds: Over all attempts.
      steps_per_second: Of this process; 0 if it trained nothing.
      device: Its name.
    """

    state: Mapping[str, Any]
    curves: Mapping[str, Sequence[Mapping[str, float]]]
    evaluation: Evaluation
    evaluation_ema: Evaluation
    train_seconds: float
    steps_per_second: float
    device: str


def spans(start: int, last: int, stops: Sequence[int], length: int) -> Iterator[tuple[int, int]]:
    """Cuts [start, last) into calls of at most `length` steps that end at every stop."""
    while start < last:
        stop = min([start + length, last, *(stop for stop in stops if stop > start)])
        yield start, stop
        start = stop


def train(
    config: Config,
    overlay: Overlay,
    source: Source,
    folder: Path,
    cell: str,
    runtime: Runtime,
    tell: Callable[[Moment], None],
) -> Trained:
    """Trains one cell to the end, from its checkpoint if it has one.

    Args:
      config: What to train.
      overlay: The prepared data set.
      source: The images under it.
      folder: The cell's folder, for checkpoints.
      cell: The cell's name, stored in them.
      runtime: Threads, replicas, steps a call, time between checkpoints.
      tell: Called after each call.

    Returns:
      The last state and what was measured.

    Raises:
      UserError: The batch does not fit the replicas, the folder cannot be written, a damaged or
        foreign checkpoint.
      DivergedError: A loss term is not finite.
    """
    if config.batch_size % runtime.num_replicas:
        raise UserError(
            f"a batch of {config.batch_size} cannot be shared evenly by {runtime.num_replicas} "
            "replicas: choose a batch_size that their number divides"
        )
    method = METHODS[config.method]
    epoch_steps = steps_per_epoch(config, len(overlay.train_ids))
    last = num_steps(config, epoch_steps)
    stops = evaluation_steps(config, epoch_steps, last)
    rate = schedules.build(config.schedule, config.optimizer.learning_rate, epoch_steps, last)

    model = models.build(
        config.network,
        overlay.num_classes,
        overlay.image_shape,
        dtype="mixed_bfloat16" if config.precision == "bfloat16" else "float32",
        synchronized=config.synchronized_batch_norm,
    )
    start = initial_state(model, method, config)
    progress = checkpoint.Progress(
        cell, 0, runtime.threads, runtime.num_replicas, 0.0, {"training": [], "evaluations": []}
    )
    if checkpoint.read_progress(folder) is not None:
        start, progress = checkpoint.load_checkpoint(folder, cell, start)
    curves = progress.curves

    network = build_network(model, config.optimizer.weight_decay)
    call = backend.compile_loop(
        build_step(method, network, config, overlay.num_classes),
        method.metrics,
        method.examples,
        runtime.steps_per_execution,
    )
    predict = build_predictor(model)
    test_images = source.test_images(np.arange(len(overlay.test_labels)))
    state = backend.place(start)
    data = backend.place(
        draws.device_data(source.train_images(np.arange(len(overlay.noisy_labels))), overlay)
    )

    def evaluate() -> tuple[Evaluation, Evaluation]:
        return tuple(  # type: ignore[return-value]
            measure(predict(state[key], state["stats"], test_images), overlay.test_labels)
            for key in ("params", "ema")
        )

    def save(step: int, now: float) -> None:
        done = checkpoint.Progress(
            cell,
            step,
            runtime.threads,
            runtime.num_replicas,
            progress.train_seconds + now - began,
            curves,
        )
        checkpoint.save_checkpoint(folder, backend.fetch(state), done)

    began = saved = time.monotonic()
    steady_steps, steady_seconds = 0, 0.0
    with ThreadPoolExecutor(1, "draws") as pool:
        calls = list(spans(progress.step, last, stops, runtime.steps_per_execution))
        prepared = [
            pool.submit(_inputs, config, overlay, rate, span, runtime.steps_per_execution)
            for span in calls[:1]
        ]
        for number, (first, end) in enumerate(calls):
            drawn, scalars = prepared.pop().result()
            if number + 1 < len(calls):
                prepared.append(
                    pool.submit(
                        _inputs,
                        config,
                        overlay,
                        rate,
                        calls[number + 1],
                        runtime.steps_per_execution,
                    )
                )
            called = time.monotonic()
            state, metrics, examples = call(state, data, drawn, scalars, end - first)
            now = time.monotonic()
            if number > 0:
                steady_steps, steady_seconds = (
                    steady_steps + end - first,
                    steady_seconds + now - called,
                )
            _require_finite(metrics, first, end, folder)
            curves["training"].append(
                {"step": end, "epoch": end / epoch_steps, "learning_rate": rate(end - 1)}
                | {name: float(np.mean(values[: end - first])) for name, values in metrics.items()}
                | _diagnostics(examples, drawn, overlay, end - first)
            )
            if end in stops:
                raw, averaged = evaluate()
                curves["evaluations"].append(
                    {
                        "step": end,
                        "accuracy": raw.accuracy,
                        "accuracy_ema": averaged.accuracy,
                        "loss": raw.loss,
                        "loss_ema": averaged.loss,
                    }
                )
                now = time.monotonic()
            if now - saved >= runtime.checkpoint_seconds or end == last:
                save(end, now)
                saved = time.monotonic()
            tell(
                Moment(
                    step=end,
                    num_steps=last,
                    steps_per_second=steady_steps / steady_seconds if steady_seconds else 0.0,
                    accuracy_ema=(
                        curves["evaluations"][-1]["accuracy_ema"] if curves["evaluations"] else None
                    ),
                    curves=curves,
                )
            )
    if not calls:
        raw, averaged = evaluate()
    return Trained(
        state=backend.fetch(state),
        curves=curves,
        evaluation=raw,
        evaluation_ema=averaged,
        train_seconds=progress.train_seconds + time.monotonic() - began,
        steps_per_second=steady_steps / steady_seconds if steady_seconds else 0.0,
        device=backend.device_description(),
    )


def _inputs(
    config: Config,
    overlay: Overlay,
    rate: Callable[[int], float],
    span: tuple[int, int],
    length: int,
) -> tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]:
    """Draws a call's random numbers and scalars, each with the step on axis 0."""
    first, end = span
    steps = [*range(first, end), *[end - 1] * (length - (end - first))]
    scalars = {
        "learning_rate": np.array([rate(step) for step in steps], np.float32),
        "ema_decay": np.array(
            [ema_decay(step, config.optimizer.ema_decay) for step in steps], np.float32
        ),
    }
    return draws.stacked_draws(config, overlay, first, end, length), scalars


def _require_finite(metrics: Mapping[str, np.ndarray], first: int, end: int, folder: Path) -> None:
    """Raises DivergedError naming the first step and the terms that are not finite."""
    finite = {name: np.isfinite(values[: end - first]) for name, values in metrics.items()}
    bad = ~np.logical_and.reduce(list(finite.values()))
    if not bad.any():
        return
    index = int(bad.argmax())
    terms = ", ".join(f"{name} = {metrics[name][index]:g}" for name in sorted(metrics))
    progress = checkpoint.read_progress(folder)
    good = f"step {progress.step}, {checkpoint.checkpoint_path(folder)}" if progress else "none"
    raise DivergedError(
        f"the loss is not finite at step {first + index} ({terms}); last good checkpoint: {good}; "
        "lower optimizer.learning_rate"
    )


def _diagnostics(
    examples: Mapping[str, np.ndarray],
    drawn: Mapping[str, np.ndarray],
    overlay: Overlay,
    count: int,
) -> dict[str, float]:
    if "weight" not in examples:
        return {}
    ids = drawn["ids"][:count]
    return weight_diagnostics(
        examples["weight"][:count], overlay.noisy_labels[ids], overlay.clean_labels[ids]
    )
