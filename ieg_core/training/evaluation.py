# SPDX-License-Identifier: Apache-2.0
"""Evaluation on the test set: what the network predicts, and how often that is right."""

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
from ieg_core.training import history
from ieg_core.training.streaming import LazyImages

BATCH_SIZE = 500
BATCH_PIXELS = 500 * 64 * 64

Predictor = Callable[[Sequence[Any], Sequence[Any], Any], np.ndarray]


@dataclass(frozen=True)
class Evaluation:
    """What a set of predictions is worth.

    Attributes:
      accuracy: Share of examples whose highest logit is the true class.
      top5: Share whose true class is among the five highest logits.
      balanced_accuracy: Mean over the classes present of their own accuracy.
      per_class: Accuracy of each class, [C]; None for a class without an example.
      loss: Mean cross-entropy.
      confusion: int64 [C, C], rows true classes, columns predicted ones.
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
      The evaluation. Of equal logits the lower class number wins, as in argmax.
    """
    num_classes = logits.shape[1]
    predicted = logits.argmax(1)
    confusion = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    counts = confusion.sum(1)
    present = counts > 0
    recall = np.divide(confusion.diagonal(), counts, where=present, out=np.zeros(num_classes))
    own = logits[np.arange(len(labels)), labels][:, None]
    earlier = np.arange(num_classes)[None, :] < np.asarray(labels)[:, None]
    rank = ((logits > own) | ((logits == own) & earlier)).sum(1)
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(labels)), labels]
    return Evaluation(
        accuracy=float(np.mean(predicted == labels)),
        top5=float(np.mean(rank < 5)),
        balanced_accuracy=float(recall[present].mean()),
        per_class=[
            float(value) if there else None for value, there in zip(recall, present, strict=True)
        ],
        loss=float(losses.mean()),
        confusion=confusion,
    )


def measure_sets(
    predict: Predictor, state: Mapping[str, Any], source: Source
) -> dict[str, dict[str, float]]:
    """Evaluates on the further test sets of a data set.

    Returns:
      By name: "accuracy", "top5" and "balanced_accuracy", each also with "_ema" for the averaged
      parameters.
    """
    found: dict[str, dict[str, float]] = {}
    for name, test in source.eval_sets.items():
        images = LazyImages(test.images, len(test.labels))
        found[name] = {}
        for key, ending in (("params", ""), ("ema", "_ema")):
            result = measure(predict(state[key], state["stats"], images), test.labels)
            for figure in ("accuracy", "top5", "balanced_accuracy"):
                found[name][figure + ending] = getattr(result, figure)
    return found


def final_beliefs(
    model: keras.Model,
    state: Mapping[str, Any],
    label_set: LabelSet,
    source: Source,
    threads: int = 1,
) -> dict[str, np.ndarray]:
    """Says which classes the training examples are thought to be of at the end of a training.

    Args:
      model: The network; its own values are not used.
      state: With "ema" and "stats".
      label_set: Says which examples are trained on, and their given labels.
      source: Their images, which are read as test images are: not augmented.
      threads: Of the linear algebra; another number gives other last bits.

    Returns:
      "final_prediction": what the averaged parameters predict, softmax(z); and, unless that takes
      too much memory, "label_posterior", see `training.label_posterior`. Both float32 [N, C]; 0 for
      examples that are not trained on.
    """
    ids = label_set.train_ids
    images = LazyImages(lambda rows: source.train_images(ids[rows]), len(ids))
    num_features = model.outputs[1].shape[1]
    is_affordable = posterior.is_affordable(len(ids), num_features, label_set.num_classes)
    infer = _build_inference(model, 2 if is_affordable else 1)
    outputs = infer(state["ema"], state["stats"], images)
    predicted = softmax(outputs[0], axis=1)
    found = {history.FINAL: predicted}
    if is_affordable:
        # numpy was imported, and has taken every processor, before the trial's share was known.
        with threadpool_limits(limits=threads, user_api="blas"):
            found[history.POSTERIOR] = posterior.label_posterior(
                outputs[1], label_set.noisy_labels[ids], predicted, label_set.seed
            )
    everyone = (len(label_set.noisy_labels), label_set.num_classes)
    spread = {name: np.zeros(everyone, np.float32) for name in found}
    for name, rows in found.items():
        spread[name][ids] = rows
    return spread


def build_predictor(model: keras.Model) -> Predictor:
    """Builds the compiled inference function of a network.

    Args:
      model: The network; its own values are not used.

    Returns:
      (params, stats, images uint8 [M, H, W, channels]) -> logits, numpy float32 [M, C]. The images
      are an array or anything that has a length and gives slices. Params and stats may live on
      several replicas; the first one computes.
    """
    infer = _build_inference(model, 1)
    return lambda params, stats, images: infer(params, stats, images)[0]


def _build_inference(model: keras.Model, num_outputs: int) -> Callable[..., list[np.ndarray]]:
    """As `build_predictor`, for the first outputs of logits and features, float32 [M, …] each."""

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
            # One shape, one compilation: the last batch is filled up with copies.
            padded = (
                np.concatenate([batch, np.repeat(batch[-1:], missing, 0)]) if missing else batch
            )
            for part, output in zip(parts, compiled(params, stats, padded), strict=True):
                part.append(np.asarray(output)[: len(batch)])
        return [np.concatenate(part) for part in parts]

    return run
