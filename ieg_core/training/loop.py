# SPDX-License-Identifier: Apache-2.0
"""The training loop: resume, then run compiled calls of several steps until the last step.

1. Move the network's initial values and the data to the device.
2. Replace the initial state with the checkpoint's, if there is one.
3. Run up to `steps_per_execution` steps per call on the device, while a thread draws the random
   numbers of the next call. No call crosses an evaluation, or the end of an epoch if the method
   has an `after_epoch`.
4. After each call: stop if a loss is not finite, add up the method's per-example outputs, run the
   method's `after_epoch`, evaluate and write a checkpoint if due, unless a parameter is not finite.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ieg_core import backend
from ieg_core.data.base import Source
from ieg_core.data.label_set import LabelSet
from ieg_core.errors import DivergedError, UserError
from ieg_core.experiment.config import Config
from ieg_core.experiment.length import evaluation_steps, num_steps, steps_per_epoch
from ieg_core.experiment.methods import method_spec
from ieg_core.host.runtime import Runtime
from ieg_core.methods import registry
from ieg_core.models import user_network
from ieg_core.store.leases import Lease
from ieg_core.training import checkpoint, history, learning_rate, step_draws, streaming
from ieg_core.training.diagnostics import dictionary_diagnostics, step_diagnostics
from ieg_core.training.evaluation import (
    Evaluation,
    build_predictor,
    final_beliefs,
    measure,
    measure_sets,
)
from ieg_core.training.step import (
    build_model,
    build_network,
    build_step,
    ema_decay,
    initial_state,
)

_LEARNED = ("params", "ema", "stats")


@dataclass(frozen=True)
class StepReport:
    """Progress of a training, reported after each call.

    Attributes:
      step: Number of completed steps.
      num_steps: Total number of steps.
      steps_per_second: Speed of the calls since this process started. The first call, which
        compiles, counts only until there is a second one.
      accuracy_ema: Test accuracy of the averaged parameters at the latest evaluation; None before
        the first one.
      curves: Everything measured so far, as in curves.json.
      confusion: Confusion matrix of the averaged parameters, int64 [C, C], if the call ended with
        an evaluation; else None.
    """

    step: int
    num_steps: int
    steps_per_second: float
    accuracy_ema: float | None
    curves: Mapping[str, Sequence[Mapping[str, float]]]
    confusion: np.ndarray | None


@dataclass(frozen=True)
class Trained:
    """The outcome of a finished training.

    Attributes:
      state: The state after the last step, numpy arrays.
      curves: As in curves.json.
      history: The method's outputs for each example, see `training.history`.
      evaluation: Scores of the raw parameters after the last step.
      evaluation_ema: Scores of the averaged parameters after the last step.
      eval_sets: Scores on further test sets, see `training.evaluation.measure_sets`.
      train_seconds: Training time in seconds, summed over all attempts.
      earlier_seconds: The part of `train_seconds` spent in earlier attempts.
      steps_per_second: Speed of this process; 0 if it did not train.
      device: Name of the device.
    """

    state: Mapping[str, Any]
    curves: Mapping[str, Sequence[Mapping[str, float]]]
    history: Mapping[str, np.ndarray]
    evaluation: Evaluation
    evaluation_ema: Evaluation
    eval_sets: Mapping[str, Mapping[str, float]]
    train_seconds: float
    earlier_seconds: float
    steps_per_second: float
    device: str


def spans(start: int, last: int, stops: Sequence[int], length: int) -> Iterator[tuple[int, int]]:
    """Splits steps into calls of the compiled loop.

    Args:
      start: The first step.
      last: The step after the last one.
      stops: Steps that no call may cross, such as those of evaluations.
      length: Most steps of a call.

    Yields:
      The first step of each call, and the step after its last one.
    """
    while start < last:
        stop = min([start + length, last, *(stop for stop in stops if stop > start)])
        yield start, stop
        start = stop


def train(
    config: Config,
    label_set: LabelSet,
    source: Source,
    lease: Lease,
    trial: str,
    runtime: Runtime,
    on_step: Callable[[StepReport], None],
) -> Trained:
    """Trains one trial to the end, starting from its checkpoint if it has one.

    Args:
      config: The configuration to train.
      label_set: The prepared labels and splits.
      source: The images.
      lease: This attempt; determines the folder of the trial and its checkpoint.
      trial: The trial's name, stored in checkpoints.
      runtime: Threads, replicas, steps per call, seconds between checkpoints.
      on_step: Called with a report after each call.

    Returns:
      The last state and everything measured.

    Raises:
      UserError: When the number of replicas does not divide the batch, the folder is not writable,
        or the checkpoint is damaged or belongs to another configuration.
      DivergedError: When a loss term, a parameter or an evaluation is not finite.
      SupersededError: When a later attempt has taken over the trial.
    """
    folder = lease.folder
    sizes = {"batch_size": config.batch_size}
    if method_spec(config.method).uses_dictionary:
        trusted_size = config.method_settings.trusted_batch_size(config.batch_size)
        sizes["method.dictionary_batch_size"] = trusted_size
    for name, size in sizes.items():
        if size % runtime.num_replicas:
            raise UserError(
                f"a batch of {size} cannot be split evenly across {runtime.num_replicas} replicas: "
                f"choose a {name} that is a multiple of {runtime.num_replicas}"
            )
    method = registry.find(config.method)
    epoch_steps = steps_per_epoch(config, len(label_set.train_ids))
    last = num_steps(config, epoch_steps)
    evaluated_at = evaluation_steps(config, epoch_steps, last)
    epoch_ends = range(epoch_steps, last + 1, epoch_steps) if method.after_epoch else range(0)
    rate = learning_rate.build(config.schedule, config.optimizer.learning_rate, epoch_steps, last)

    model = build_model(config, label_set.num_classes, label_set.image_shape)
    if runtime.num_replicas > 1 and config.synchronized_batch_norm:
        user_network.require_synchronized(model)
    start = initial_state(model, method, config, label_set)
    start["history"] = history.start(method, label_set)
    progress = checkpoint.Progress(
        trial, 0, runtime.threads, runtime.num_replicas, 0.0, {"training": [], "evaluations": []}
    )
    if checkpoint.read_progress(folder) is not None:
        start, progress = checkpoint.load_checkpoint(folder, trial, start)
    curves, sums = progress.curves, start.pop("history")

    network = build_network(model, config.optimizer.weight_decay)
    length = streaming.steps_per_call(config, source, runtime.steps_per_execution)
    call = backend.compile_loop(
        build_step(method, network, config, label_set.num_classes),
        method.metrics,
        method.examples,
        length,
    )
    predict = build_predictor(model)
    test_images = streaming.LazyImages(source.test_images, len(label_set.test_labels))
    dictionary = start["method"].get("dictionary")
    state = backend.place(start)
    images = (
        None
        if streaming.streams_from_disk(source)
        else source.train_images(np.arange(len(label_set.noisy_labels)))
    )
    data = backend.place(step_draws.device_data(images, label_set))

    def evaluate() -> tuple[Evaluation, Evaluation]:
        raw, averaged = (
            measure(predict(state[key], state["stats"], test_images), label_set.test_labels)
            for key in ("params", "ema")
        )
        return raw, averaged

    def save(step: int) -> None:
        seconds = progress.train_seconds + time.monotonic() - began
        done = dataclasses.replace(progress, step=step, train_seconds=seconds, curves=curves)
        fetched = backend.fetch(state)
        _require_finite_parameters(fetched, step, folder)
        checkpoint.save_checkpoint(lease, {**fetched, "history": sums}, done)

    began = saved = time.monotonic()
    steady_steps, steady_seconds = 0, 0.0
    stops = sorted({*evaluated_at, *epoch_ends})
    calls = list(spans(progress.step, last, stops, length))
    with ThreadPoolExecutor(1, "draws") as pool:

        def prepare(number: int) -> Any:
            """Starts drawing the inputs of a call; None if there is no such call."""
            if number == len(calls):
                return None
            draw = functools.partial(_inputs, config, label_set, source, dictionary, rate)
            return pool.submit(draw, calls[number], length)

        prepared = prepare(0)
        for number, (first, end) in enumerate(calls):
            drawn, scalars = prepared.result()
            # Streamed images of the dictionary cannot be read before it is refilled.
            waits = streaming.streams_from_disk(source) and end in epoch_ends
            if not waits:
                prepared = prepare(number + 1)
            called = time.monotonic()
            state, metrics, examples = call(state, data, drawn, scalars, end - first)
            if number == 1:  # the first call compiled; it counts only while it is the only one
                steady_steps, steady_seconds = 0, 0.0
            steady_steps += end - first
            steady_seconds += time.monotonic() - called
            metrics, examples = (
                {name: values[: end - first] for name, values in named.items()}
                for named in (metrics, examples)
            )
            _require_finite(metrics, first, folder)

            diagnostics = {}
            if examples:
                ids = drawn["ids"][: end - first]
                counted = max(0, history.first_step(last, epoch_steps) - first)
                history.add(sums, ids, examples, first=counted)
                diagnostics = step_diagnostics(examples, ids, label_set)
            if end in epoch_ends and method.after_epoch:
                changes = method.after_epoch(config, label_set, backend.fetch(state["method"]))
                state["method"] = {**state["method"], **backend.place(changes)}
                if "dictionary" in changes:
                    dictionary = changes["dictionary"]
                    diagnostics |= dictionary_diagnostics(dictionary, label_set)
            if waits:
                prepared = prepare(number + 1)
            if _is_row_due(curves["training"], end, last, stops):
                means = {name: float(values.mean()) for name, values in metrics.items()}
                place = {"step": end, "epoch": end / epoch_steps, "learning_rate": rate(end - 1)}
                curves["training"].append(place | means | diagnostics)
            confusion = None
            if end in evaluated_at:
                learned = {name: state[name] for name in _LEARNED}
                _require_finite_parameters(backend.fetch(learned), end, folder)
                raw, averaged = evaluate()
                sets = measure_sets(predict, state, source)
                curves["evaluations"].append(_evaluation_row(end, raw, averaged, sets))
                confusion = averaged.confusion
            if time.monotonic() - saved >= runtime.checkpoint_seconds or end == last:
                save(end)
                saved = time.monotonic()
            latest = curves["evaluations"][-1]["accuracy_ema"] if curves["evaluations"] else None
            on_step(StepReport(end, last, steady_steps / steady_seconds, latest, curves, confusion))
    if not calls:
        raw, averaged = evaluate()
        sets = measure_sets(predict, state, source)
    outputs = history.means(sums)
    if "pseudo_label" in method.examples:
        outputs |= final_beliefs(model, state, label_set, source, runtime.threads)
    return Trained(
        state=backend.fetch(state),
        curves=curves,
        history=outputs,
        evaluation=raw,
        evaluation_ema=averaged,
        eval_sets=sets,
        train_seconds=progress.train_seconds + time.monotonic() - began,
        earlier_seconds=progress.train_seconds,
        steps_per_second=steady_steps / steady_seconds if steady_seconds else 0.0,
        device=backend.device_description(),
    )


def _is_row_due(
    rows: Sequence[Mapping[str, float]], step: int, last: int, stops: Sequence[int]
) -> bool:
    """Returns whether to add a row to the curves: at each stop, else about 1,000 times a run."""
    return step in stops or not rows or step - rows[-1]["step"] >= last / 1000


def _evaluation_row(
    step: int,
    raw: Evaluation,
    averaged: Evaluation,
    sets: Mapping[str, Mapping[str, float]],
) -> dict[str, float]:
    row = {"step": step, "accuracy": raw.accuracy, "accuracy_ema": averaged.accuracy}
    row |= {"loss": raw.loss, "loss_ema": averaged.loss}
    for name, scores in sets.items():
        row |= {f"{figure}_{name}": scores[figure] for figure in ("accuracy", "accuracy_ema")}
    return row


def _inputs(
    config: Config,
    label_set: LabelSet,
    source: Source,
    dictionary: np.ndarray | None,
    rate: Callable[[int], float],
    span: tuple[int, int],
    length: int,
) -> tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]:
    """Draws the random numbers and scalars of a call, with the step on axis 0."""
    first, end = span
    epoch_steps = steps_per_epoch(config, len(label_set.train_ids))
    steps = [*range(first, end), *[end - 1] * (length - (end - first))]
    scalars = {
        "learning_rate": np.array([rate(step) for step in steps], np.float32),
        "ema_decay": np.array(
            [ema_decay(step, config.optimizer.ema_decay) for step in steps], np.float32
        ),
        "epoch": np.array([step // epoch_steps for step in steps], np.float32),
    }
    drawn = streaming.stacked_draws(config, label_set, source, dictionary, span, length)
    return drawn, scalars


def _require_finite(metrics: Mapping[str, np.ndarray], first: int, folder: Path) -> None:
    """Raises DivergedError with the first step that is not finite and its loss terms."""
    bad = ~np.logical_and.reduce([np.isfinite(values) for values in metrics.values()])
    if not bad.any():
        return
    index = int(bad.argmax())
    terms = ", ".join(f"{name} = {values[index]:g}" for name, values in sorted(metrics.items()))
    raise _diverged(f"the loss is not finite at step {first + index} ({terms})", folder)


def _require_finite_parameters(state: Mapping[str, Any], step: int, folder: Path) -> None:
    """Raises DivergedError for what the loss would show only in a next step."""
    for name in _LEARNED:
        if not all(np.isfinite(each).all() for each in state[name]):
            raise _diverged(f"a parameter is not finite after step {step}", folder)


def _diverged(reason: str, folder: Path) -> DivergedError:
    good = checkpoint.describe_latest(folder)
    return DivergedError(f"{reason}; last good checkpoint: {good}; lower optimizer.learning_rate")
