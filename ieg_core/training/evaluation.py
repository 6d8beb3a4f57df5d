# SPDX-License-Identifier: Apache-2.0
"""Evaluation on the test set: what the network predicts, and how often that is right."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from ieg_core import augment, backend
from ieg_core.data.overlay import Overlay
from ieg_core.data.source import Source
from ieg_core.training.feed import LazyImages

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


def final_predictions(
    predict: Predictor, state: Mapping[str, Any], overlay: Overlay, source: Source
) -> np.ndarray:
    """Predicts the training examples with the averaged parameters.

    Args:
      predict: Of `build_predictor`.
      state: With "ema" and "stats".
      overlay: Says which examples are trained on.
      source: Their images, which are read as test images are: not augmented.

    Returns:
      Probabilities softmax(z), float32 [N, C]; 0 for examples that are not trained on.
    """
    ids = overlay.train_ids
    images = LazyImages(lambda rows: source.train_images(ids[rows]), len(ids))
    logits = predict(state["ema"], state["stats"], images)
    raised = np.exp(logits - logits.max(1, keepdims=True))
    found = np.zeros((len(overlay.noisy_labels), overlay.num_classes), np.float32)
    found[ids] = raised / raised.sum(1, keepdims=True)
    return found


def build_predictor(model: keras.Model) -> Predictor:
    """Builds the compiled inference function of a network.

    Args:
      model: The network; its own values are not used.

    Returns:
      (params, stats, images uint8 [M, H, W, channels]) -> logits, numpy float32 [M, C]. The images
      are an array or anything that has a length and gives slices. Params and stats may live on
      several replicas; the first one computes.
    """

    def infer(params: Sequence[Any], stats: Sequence[Any], images: Any) -> Any:
        scaled = augment.to_unit_range(images)
        (logits, _), _ = model.stateless_call(params, stats, scaled, training=False)
        return logits

    compiled = backend.compile_function(infer)

    height, width = model.inputs[0].shape[1:3]
    largest = max(1, min(BATCH_SIZE, BATCH_PIXELS // ((height or 1) * (width or 1))))

    def predict(params: Sequence[Any], stats: Sequence[Any], images: Any) -> np.ndarray:
        params, stats = backend.first_replica([list(params), list(stats)])
        size = min(largest, len(images))
        parts = []
        for start in range(0, len(images), size):
            batch = images[start : start + size]
            missing = size - len(batch)
            # One shape, one compilation: the last batch is filled up with copies.
            padded = (
                np.concatenate([batch, np.repeat(batch[-1:], missing, 0)]) if missing else batch
            )
            parts.append(np.asarray(compiled(params, stats, padded))[: len(batch)])
        return np.concatenate(parts)

    return predict
