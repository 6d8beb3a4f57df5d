# SPDX-License-Identifier: Apache-2.0
"""`ieg predict`: the classes of image files, by an exported model."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ieg_core.data.images import (
    UnreadableImageError,
    central_square,
    evaluated_square,
    read_pixels,
)
from ieg_core.errors import UserError
from ieg_core.model_file import ModelFacts, read_facts
from ieg_core.runtime import Runtime, set_environment

BATCH = 64


@dataclass(frozen=True)
class Prediction:
    """What a model says of one file.

    Attributes:
      path: The file.
      classes: (name, probability), the likeliest first; empty if it cannot be read.
      problem: Why it cannot be read, else "".
    """

    path: Path
    classes: tuple[tuple[str, float], ...] = ()
    problem: str = ""


def predict_files(model: Path, paths: Sequence[Path], top: int = 3) -> list[Prediction]:
    """Predicts the classes of image files: softmax of the logits of the averaged parameters.

    Args:
      model: An exported `.keras` file.
      paths: JPEG, PNG or WebP files.
      top: How many classes to tell of each.

    Returns:
      One prediction a file, in order.

    Raises:
      UserError: The model cannot be read.
    """
    facts = read_facts(model)
    images, predictions = [], [Prediction(path) for path in paths]
    for index, path in enumerate(paths):
        try:
            images.append((index, _read(path, facts)))
        except (UnreadableImageError, OSError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            predictions[index] = Prediction(path, problem=reason)
    if not images:
        return predictions
    set_environment(Runtime(threads=1))
    import keras

    try:
        network = keras.models.load_model(model, compile=False)
    except (ValueError, OSError) as error:
        raise UserError(f"the model {model} cannot be loaded: {error}") from error
    for start in range(0, len(images), BATCH):
        part = images[start : start + BATCH]
        pixels = np.stack([image for _, image in part]).astype(np.float32)
        logits = np.asarray(network(pixels, training=False), np.float64)
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        for (index, _), row in zip(part, shifted / shifted.sum(1, keepdims=True), strict=True):
            best = np.argsort(-row, kind="stable")[:top]
            found = tuple((facts.class_names[number], float(row[number])) for number in best)
            predictions[index] = Prediction(paths[index], found)
    return predictions


def _read(path: Path, facts: ModelFacts) -> np.ndarray:
    height, _, channels = facts.image_shape
    box = evaluated_square if facts.preprocessing == "crop" else central_square
    return read_pixels(path.read_bytes(), height, box, channels=channels)
