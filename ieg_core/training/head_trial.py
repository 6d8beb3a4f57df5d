# SPDX-License-Identifier: Apache-2.0
"""Trains a head on the features of a pre-trained network, with one of three losses.

Every method trains the same head on the same features (`ieg_core.features`) for the same number of
steps; methods differ in the loss on the given labels y:

    supervised   −log p_y                         the given labels
    forward      −log Σ_c p_c T[c, y]             the posterior's T, from counts and then EM
    retrain      −Σ_c q_c log p_c, with MixUp     q, the posterior of `audit.feature_posterior`

Features are computed from unaugmented images, and the head has no moving average: both accuracies
in a record are those of its parameters. There are no checkpoints: features are cached and the rest
takes seconds, so an interrupted training starts over.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from threadpoolctl import threadpool_limits

from ieg_core.audit.feature_posterior import Evidence, judge_labels
from ieg_core.data.base import Source
from ieg_core.data.image_folder.listing import TEST, TRAIN
from ieg_core.data.image_folder.squares import read_squares, square_keys
from ieg_core.data.label_set import CLEAN_VALIDATION, LabelSet
from ieg_core.errors import DivergedError, UserError
from ieg_core.experiment import feature_sources
from ieg_core.experiment.config import Config, HeadConfig
from ieg_core.experiment.feature_sources import SIZE, FeatureSource
from ieg_core.experiment.length import evaluation_steps, num_steps, steps_per_epoch
from ieg_core.features.classifier import FeatureClassifier, UsedFeatures
from ieg_core.features.extract import extract_features
from ieg_core.features.files import in_order_of, read_features
from ieg_core.features.head import Head, HeadSettings, train_head
from ieg_core.features.network import FeatureNetwork, find_network
from ieg_core.features.reduction import reduce_features
from ieg_core.host.cache import cache_folder
from ieg_core.host.locks import lock, open_lock
from ieg_core.host.runtime import Runtime
from ieg_core.store.layout import HEAD
from ieg_core.training import history
from ieg_core.training.evaluation import Evaluation, measure
from ieg_core.training.loop import StepReport, Trained

EXTRACTING: Final = "computing features"

_LOG_STEPS: Final = 20
_TINY: Final = 1e-30


def train_on_features(
    config: Config,
    label_set: LabelSet,
    source: Source,
    folder: Path,
    runtime: Runtime,
    on_step: Callable[[StepReport], None],
    report_progress: Callable[..., None],
) -> Trained:
    """Trains one trial's head and writes it.

    Args:
      config: The trial's configuration; `config.head` has the head's hyperparameters.
      label_set: The prepared data set.
      source: Its images.
      folder: The trial's folder.
      runtime: Sets the number of threads.
      on_step: Called at each row of the curves.
      report_progress: Writes progress.json.

    Returns:
      The measurements. `state` has the layers; `train_seconds` includes the labels' posterior, but
      not the features.

    Raises:
      UserError: When the features cannot be computed, all labels are of one class, or a class has
        one image.
      DivergedError: When the loss is not finite.
    """
    ids = label_set.train_ids
    _require_pairs(label_set)
    report_progress(phase=EXTRACTING)
    train = [each[ids] for each in _features(config, source, TRAIN)]
    tests = _test_features(config, label_set, source)
    report_progress(phase="training")
    # numpy was imported, with a thread per core, before the trial's share was known.
    with threadpool_limits(limits=runtime.threads, user_api="blas"):
        return _train(config, label_set, source, train, tests, folder, on_step)


def evaluate_head(
    folder: Path, config: Config, label_set: LabelSet, source: Source
) -> tuple[Evaluation, dict[str, dict[str, float]]]:
    """Evaluates a trained head on the test set, and on the further ones.

    Args:
      folder: The trial's folder.
      config: Its configuration.
      label_set: Its labels.
      source: The images that it is measured on (`LabelSet.measured`).

    Returns:
      The evaluation of the test set, and the measures of each further one by its name.

    Raises:
      UserError: When the head's file is missing or damaged, or is of other features.
    """
    classifier = FeatureClassifier.read(folder / HEAD)
    used = _used(config, source)
    if classifier.features != used:
        raise UserError(
            f"the head in {folder / HEAD} was trained on the features {classifier.features}, not "
            f"{used}: train the trial again"
        )
    tests = _test_features(config, label_set, source)
    predicted = classifier.predict(tests[TEST])
    return (
        measure(_log(predicted), label_set.test_labels),
        _measure_sets(classifier, source, tests),
    )


def _test_features(
    config: Config, label_set: LabelSet, source: Source
) -> dict[str, list[np.ndarray]]:
    """Returns the features that a trial is measured on: "test", and each further test set."""
    if not len(label_set.validation_ids):
        return {name: _features(config, source, name) for name in (TEST, *source.eval_sets)}
    train = _features(config, source, TRAIN)
    parts = {TEST: label_set.validation_ids, CLEAN_VALIDATION: label_set.clean_validation_ids}
    return {name: [each[ids] for each in train] for name, ids in parts.items()}


def _require_pairs(label_set: LabelSet) -> None:
    """Refuses a class of one image, whose label no other image can confirm."""
    given = label_set.noisy_labels[label_set.train_ids]
    single = np.flatnonzero(np.bincount(given, minlength=label_set.num_classes) == 1)
    if len(single):
        more = f" and {len(single) - 1} more classes" if len(single) > 1 else ""
        raise UserError(
            f"the class {label_set.class_names[single[0]]!r}{more} has one training image: "
            "expected at least two per class; add images or remove the class"
        )


def _measure_sets(
    classifier: FeatureClassifier, source: Source, features: Mapping[str, Sequence[np.ndarray]]
) -> dict[str, dict[str, float]]:
    """As `training.evaluation.measure_sets`; a head has no averaged parameters."""
    scores: dict[str, dict[str, float]] = {}
    for name, test in source.eval_sets.items():
        result = measure(_log(classifier.predict(features[name])), test.labels)
        figures = ("accuracy", "top5", "balanced_accuracy")
        scores[name] = {
            figure + ending: getattr(result, figure)
            for figure in figures
            for ending in ("", "_ema")
        }
    return scores


def _train(
    config: Config,
    label_set: LabelSet,
    source: Source,
    features: Sequence[np.ndarray],
    tests: Mapping[str, Sequence[np.ndarray]],
    folder: Path,
    on_step: Callable[[StepReport], None],
) -> Trained:
    began = time.monotonic()
    ids, classes = label_set.train_ids, label_set.num_classes
    given = label_set.noisy_labels[ids]
    if config.method == "supervised":
        evidence = None
        reduced, reduction = reduce_features(features)
    else:
        evidence = judge_labels(features, given, classes, seed=config.seed)
        reduction = evidence.reduction
        reduced = reduction.apply(features)
    inputs, further = reduced * reduction.scale, reduction.apply(tests[TEST]) * reduction.scale
    targets, is_evidence, alpha = _targets(config, given, classes, evidence)

    epoch_steps = steps_per_epoch(config, len(ids))
    last = num_steps(config, epoch_steps)
    evaluated_at = set(evaluation_steps(config, epoch_steps, last))
    curves: dict[str, list[dict[str, float]]] = {"training": [], "evaluations": []}
    losses: list[float] = []
    results: list[Evaluation] = []

    def after_step(step: int, loss: float, layers: Any) -> None:
        losses.append(loss)
        is_evaluated = step in evaluated_at
        if not is_evaluated and step % _LOG_STEPS:
            return
        mean = float(np.mean(losses))
        losses.clear()
        if not np.isfinite(mean):
            raise DivergedError(f"the loss is not finite at step {step}: lower head.learning_rate")
        curves["training"].append({"step": step, "epoch": step / epoch_steps, "loss": mean})
        if is_evaluated:
            result = measure(_log(Head(layers).predict(further)), label_set.test_labels)
            results.append(result)
            curves["evaluations"].append(_evaluation_row(step, result))
        rate = step / (time.monotonic() - began)
        accuracy = results[-1].accuracy if results else None
        confusion = results[-1].confusion if is_evaluated else None
        on_step(StepReport(step, last, rate, accuracy, curves, confusion))

    # An overflow makes the loss non-finite, which `after_step` reports.
    with np.errstate(over="ignore", invalid="ignore"):
        head = train_head(
            inputs,
            targets,
            _settings(config.head or HeadConfig(), config.batch_size, alpha),
            seed=config.seed,
            is_evidence=is_evidence,
            steps=last,
            on_step=after_step,
        )
    seconds = time.monotonic() - began
    classifier = FeatureClassifier(
        class_names=label_set.class_names,
        features=_used(config, source),
        reduction=reduction,
        head=head,
        trained_on=config.dataset,
        method=config.method,
    )
    classifier.write(folder / HEAD)
    return Trained(
        state={"params": list(head.layers)},
        curves=curves,
        history=_beliefs(label_set, head, inputs, evidence, visits=last // epoch_steps),
        evaluation=results[-1],
        evaluation_ema=results[-1],
        eval_sets=_measure_sets(classifier, source, tests),
        train_seconds=seconds,
        earlier_seconds=0.0,
        steps_per_second=last / seconds,
        device="CPU",
    )


def _targets(
    config: Config, given: np.ndarray, classes: int, evidence: Evidence | None
) -> tuple[np.ndarray, bool, float]:
    """Returns a method's targets or evidence, whether they are evidence, and MixUp's α."""
    if evidence is None:
        return np.eye(classes, dtype=np.float32)[given], False, 0.0
    mixup_alpha = config.method_settings.soft_label_mixup
    if mixup_alpha is not None:
        return evidence.q, False, mixup_alpha
    return evidence.transitions[0].T[given].astype(np.float32), True, 0.0


def _settings(head: HeadConfig, batch_size: int, mixup_alpha: float) -> HeadSettings:
    return HeadSettings(
        hidden=head.hidden,
        batch_size=batch_size,
        learning_rate=head.learning_rate,
        weight_decay=head.weight_decay,
        mixup_alpha=mixup_alpha,
    )


def _beliefs(
    label_set: LabelSet, head: Head, inputs: np.ndarray, evidence: Evidence | None, visits: int
) -> dict[str, np.ndarray]:
    """Returns class distributions of the training examples, in the form of `training.history`.

    With a posterior: the out-of-fold predictions from features alone, and q; otherwise the head's
    predictions.
    """
    ids, num_examples = label_set.train_ids, len(label_set.noisy_labels)
    distributions = {
        history.FINAL: head.predict(inputs) if evidence is None else evidence.predicted
    }
    if evidence is not None:
        distributions[history.POSTERIOR] = evidence.q
    rows_by_name = {"visits": np.zeros(num_examples, np.int32)}
    rows_by_name["visits"][ids] = max(1, visits)
    for name, rows in distributions.items():
        rows_by_name[name] = np.zeros((num_examples, label_set.num_classes), np.float32)
        rows_by_name[name][ids] = rows
    return rows_by_name


def _evaluation_row(step: int, result: Evaluation) -> dict[str, float]:
    figures: Mapping[str, float] = {"accuracy": result.accuracy, "loss": result.loss}
    averaged = {f"{name}_ema": value for name, value in figures.items()}
    return {"step": step, **figures, **averaged}


def _log(predicted: np.ndarray) -> np.ndarray:
    return np.log(predicted + _TINY)


def _used(config: Config, source: Source) -> tuple[UsedFeatures, ...]:
    return tuple(
        UsedFeatures(each.name)
        if network is None
        else UsedFeatures(each.name, network.sha256, network.size)
        for each, network in _sources(config, source)
    )


def _sources(config: Config, source: Source) -> list[tuple[FeatureSource, FeatureNetwork | None]]:
    """Returns the features of a trial, each with its network; None for precomputed ones."""
    size = config.images.size if config.images and source.files else SIZE
    return [
        (each, find_network(each.name, size) if each.is_network else None)
        for each in feature_sources.parse(config.network)
    ]


def _features(config: Config, source: Source, part: str) -> list[np.ndarray]:
    """Returns features of a part of a data set: "train", "test" or the name of a further test set.

    A lock admits one process of this user at a time: trials that start together need the same
    features, so one computes them while the others wait, and these then read the cache.
    """
    with _locked(cache_folder() / "features.lock"):
        return [
            _computed(config, source, part, network)
            if network
            else _precomputed(each.name, source, part)
            for each, network in _sources(config, source)
        ]


def _computed(config: Config, source: Source, part: str, network: FeatureNetwork) -> np.ndarray:
    size, name = network.size, network.name
    if config.images is not None and part in source.files:
        files, limit = source.files[part], config.images.max_megapixels
        return extract_features(
            lambda places: read_squares(files, size, places, limit),
            len(files.paths),
            network=name,
            size=size,
            digests=square_keys(files, size),
        )
    read, count = {
        TRAIN: (source.train_images, len(source.train_labels)),
        TEST: (source.test_images, len(source.test_labels)),
        **{name: (each.images, len(each.labels)) for name, each in source.eval_sets.items()},
    }[part]
    return extract_features(read, count, network=name, size=size)


def _precomputed(name: str, source: Source, part: str) -> np.ndarray:
    """Returns the rows of a features file that belong to the training or test examples."""
    path = Path(name)
    (rows,) = read_features([path])
    if source.files:
        names = [*source.files[TRAIN].paths, *source.files[TEST].paths]
        (rows,) = in_order_of(names, [rows], [path])
    train, test = len(source.train_labels), len(source.test_labels)
    if len(rows) != train + test:
        raise UserError(
            f"{name} holds features of {len(rows)} images: expected {train + test} rows, the "
            f"{train} training images of {source.origin} and then its {test} test images"
        )
    if part not in (TRAIN, TEST):
        raise UserError(
            f"{name} holds no features of the test set {part}: leave it out with images.eval_sets="
        )
    return rows[:train] if part == TRAIN else rows[train:]


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        # Without a writable cache there is nothing to share, so there is no need to wait.
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = open_lock(path)
            stack.callback(os.close, handle)
            lock(handle, wait=True)
        yield
