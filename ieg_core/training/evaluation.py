# SPDX-License-Identifier: Apache-2.0
"""Evaluation on test sets: the network's predictions and their accuracy."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from scipy.special import softmax
from threadpoolctl import threadpool_limits

from ieg_core import augment, backend
from ieg_core.audit import posterior
from ieg_core.data.base import Source
from ieg_core.data.label_set import LabelSet
from ieg_core.errors import DivergedError
from ieg_core.training import history
from ieg_core.training.streaming import LazyImages

BATCH_SIZE = 500
BATCH_PIXELS = 500 * 64 * 64

Predictor = Callable[[Sequence[Any], Sequence[Any], Any], np.ndarray]


@dataclass(frozen=True)
class Evaluation:
    """Scores of a set of predictions.

    Attributes:
      accuracy: Share of examples whose highest logit is the true class.
      top5: Share of examples whose true class is among the five highest logits.
      balanced_accuracy: Mean of the per-class accuracies over the classes that occur.
      per_class: Accuracy of each class, C values; None for a class without examples.
      loss: Mean cross-entropy, in nats.
      confusion: Counts, int64 [C, C]; rows are true classes, columns predicted classes.
    """

    accuracy: float
    top5: float
    balanced_accuracy: float
    per_class: list[float | None]
    loss: float
    confusion: np.ndarray


def measure(logits: np.ndarray, labels: np.ndarray) -> Evaluation:
    """Scores predictions.

    Args:
      logits: float [M, C].
      labels: True classes, int [M].

    Returns:
      The scores. The lower class number wins a tie between logits, as in argmax.

    Raises:
      DivergedError: When a logit is not finite.
    """
    if not np.isfinite(logits).all():
        raise DivergedError(
            "the network's outputs for test images are not finite: lower the learning rate"
        )
    num_classes = logits.shape[1]
    predicted = logits.argmax(1)
    confusion = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    counts = confusion.sum(1)
    present = counts > 0
    recall = np.divide(confusion.diagonal(), counts, where=present, out=np.zeros(num_classes))
    true_logits = logits[np.arange(len(labels)), labels][:, None]
    earlier = np.arange(num_classes)[None, :] < np.asarray(labels)[:, None]
    rank = ((logits > true_logits) | ((logits == true_logits) & earlier)).sum(1)
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(labels)), labels]
    return Evaluation(
        accuracy=float(np.mean(predicted == labels)),
        top5=float(np.mean(rank < 5)),
        balanced_accuracy=float(recall[present].mean()),
        per_class=[
            float(value) if occurs else None for value, occurs in zip(recall, present, strict=True)
        ],
        loss=float(losses.mean()),
        confusion=confusion,
    )


def measure_sets(
    predict: Predictor, state: Mapping[str, Any], source: Source
) -> dict[str, dict[str, float]]:
    """Evaluates on the further test sets of a data set.

    Returns:
      For each test set by name: "accuracy", "top5" and "balanced_accuracy" of the raw parameters,
      and the same names with "_ema" for the averaged ones.
    """
    scores: dict[str, dict[str, float]] = {}
    for name, test in source.eval_sets.items():
        images = LazyImages(test.images, len(test.labels))
        scores[name] = {}
        for key, ending in (("params", ""), ("ema", "_ema")):
            result = measure(predict(state[key], state["stats"], images), test.labels)
            for figure in ("accuracy", "top5", "balanced_accuracy"):
                scores[name][figure + ending] = getattr(result, figure)
    return scores


def final_beliefs(
    model: keras.Model,
    state: Mapping[str, Any],
    label_set: LabelSet,
    source: Source,
    threads: int = 1,
) -> dict[str, np.ndarray]:
    """Estimates the true classes of the training examples at the end of a training.

    Args:
      model: The network; the values of its variables are not used.
      state: A training state; "ema" and "stats" are used.
      label_set: Names the examples in training, and their given labels.
      source: Their images, read without augmentation, as test images are.
      threads: Threads of the linear algebra; another number changes the last bits.

    Returns:
      "final_prediction", softmax(z) of the averaged parameters; and, unless it takes too much
      memory, "label_posterior", see `ieg_core.audit.posterior.label_posterior`. Both are float32
      [N, C], and 0 for examples that are not in training.
    """
    ids = label_set.train_ids
    images = LazyImages(lambda rows: source.train_images(ids[rows]), len(ids))
    num_features = model.outputs[1].shape[1]
    is_affordable = posterior.is_affordable(len(ids), num_features, label_set.num_classes)
    infer = _build_inference(model, 2 if is_affordable else 1)
    outputs = infer(state["ema"], state["stats"], images)
    predicted = softmax(outputs[0], axis=1)
    beliefs = {history.FINAL: predicted}
    if is_affordable:
        # numpy was imported before the trial's share of the cores was known, and uses all of them.
        with threadpool_limits(limits=threads, user_api="blas"):
            beliefs[history.POSTERIOR] = posterior.label_posterior(
                outputs[1], label_set.noisy_labels[ids], predicted, label_set.seed
            )
    shape = (len(label_set.noisy_labels), label_set.num_classes)
    spread = {name: np.zeros(shape, np.float32) for name in beliefs}
    for name, rows in beliefs.items():
        spread[name][ids] = rows
    return spread


def build_predictor(model: keras.Model) -> Predictor:
    """Builds the compiled inference function of a network.

    Args:
      model: The network; the values of its variables are not used.

    Returns:
      (params, stats, images uint8 [M, H, W, channels]) -> logits, numpy float32 [M, C]. The images
      are an array or any object with a length and slices. If params and stats are on several
      replicas, the first replica computes.
    """
    infer = _build_inference(model, 1)
    return lambda params, stats, images: infer(params, stats, images)[0]


def _build_inference(model: keras.Model, num_outputs: int) -> Callable[..., list[np.ndarray]]:
    """As `build_predictor`, for the first `num_outputs` of logits and features, float32 [M, …]."""

    def infer(params: Sequence[Any], stats: Sequence[Any], images: Any) -> Any:
        scaled = augment.to_unit_range(images)
        outputs, _ = model.stateless_call(params, stats, scaled, training=False)
        return list(outputs[:num_outputs])

    compiled = backend.compile_function(infer)

    height, width = model.inputs[0].shape[1:3]
    largest = max(1, min(BATCH_SIZE, BATCH_PIXELS // ((height or 1) * (width or 1))))

    def run(params: Sequence[Any], stats: Sequence[Any], images: Any) -> list[np.ndarray]:
        params, stats = backend.first_replica([list(params), list(stats)])
        size = min(largest, len(images))
        parts: list[list[np.ndarray]] = [[] for _ in range(num_outputs)]
        for start in range(0, len(images), size):
            batch = images[start : start + size]
            missing = size - len(batch)
            # The last batch is padded with copies, so that there is one shape and one compilation.
            padded = (
                np.concatenate([batch, np.repeat(batch[-1:], missing, 0)]) if missing else batch
            )
            for part, output in zip(parts, compiled(params, stats, padded), strict=True):
                part.append(np.asarray(output)[: len(batch)])
        return [np.concatenate(part) for part in parts]

    return run
