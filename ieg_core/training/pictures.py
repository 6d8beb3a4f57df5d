# SPDX-License-Identifier: Apache-2.0
"""Small pictures of a run for those who follow it: what the network sees, and what it mixes up."""

import contextlib
import io
from collections.abc import Mapping

import keras
import numpy as np
from keras import ops
from PIL import Image

from ieg_core.data.base import Source
from ieg_core.data.label_set import LabelSet
from ieg_core.experiment.config import Config
from ieg_core.experiment.methods import method_spec
from ieg_core.methods import registry
from ieg_core.methods.method import Batch
from ieg_core.training import step_draws, streaming
from ieg_core.training.step import build_batch

MOST_BYTES = 64 * 1024
MOST_IMAGES = 16
COLUMNS = 8
LARGEST_TILE, SMALLEST_TILE = 64, 32
MOST_CLASSES = 250
"""Rows of a confusion matrix's picture at most; with more classes neighbours share a pixel."""
CONFUSION_SIDE = 240
LIGHT, DARK = np.array([247, 251, 255.0]), np.array([8, 48, 107.0])
LEVELS = 64


def first_views(config: Config, label_set: LabelSet, source: Source) -> Mapping[str, bytes]:
    """Draws training images as the network sees them in step 0, after augmentation.

    Computed anew on the CPU from the step's own draws, which are a pure function of the seed: the
    training itself knows nothing of it.

    Args:
      config: The run's configuration.
      label_set: Which examples there are.
      source: Their images.

    Returns:
      Pictures by TensorBoard tag, of those among "train/weak_view", "train/strong_view" and
      "train/probe_view" that the method looks at; the same place shows the same example in the
      weak and the strong one.
    """
    spec = method_spec(config.method)
    with _cpu():
        batch = _first_batch(config, label_set, source)
        plain = "strong_view" if spec.view == "strong" else "weak_view"
        views = {
            f"train/{plain}": batch.images,
            "train/strong_view": batch.images if plain == "strong_view" else batch.strong_images,
            "train/probe_view": batch.probe_images,
        }
        return {
            tag: grid(from_unit_range(ops.convert_to_numpy(images)))
            for tag, images in views.items()
            if images is not None
        }


def from_unit_range(images: np.ndarray) -> np.ndarray:
    """Scales back what `augment.to_unit_range` scaled: [−1, 1] to uint8."""
    return np.rint((images + 1.0) * 127.5).clip(0, 255).astype(np.uint8)


def grid(images: np.ndarray) -> bytes:
    """Sets images side by side.

    Args:
      images: uint8 [n, H, W, channels], 1 ≤ n; 1 or 3 channels.

    Returns:
      A PNG, or a JPEG where that would be larger than 64 KiB; small images are enlarged in whole
      steps, large ones are made smaller.
    """
    height, width = images.shape[1:3]
    scale = min(1.0, LARGEST_TILE / max(height, width))
    times = max(1, SMALLEST_TILE // max(height, width))
    size = (max(1, round(width * scale)) * times, max(1, round(height * scale)) * times)
    way = Image.Resampling.BOX if scale < 1 else Image.Resampling.NEAREST
    colours = np.repeat(images, 3, -1) if images.shape[-1] == 1 else images
    rows = -(-len(images) // COLUMNS)
    columns = min(COLUMNS, len(images))
    sheet = Image.new("RGB", (columns * (size[0] + 2) - 2, rows * (size[1] + 2) - 2), "white")
    for place, image in enumerate(colours):
        row, column = divmod(place, COLUMNS)
        tile = Image.fromarray(image).resize(size, way)
        sheet.paste(tile, (column * (size[0] + 2), row * (size[1] + 2)))
    encoded = _encoded(sheet, "PNG")
    return encoded if len(encoded) <= MOST_BYTES else _encoded(sheet, "JPEG", quality=75)


def confusion_picture(confusion: np.ndarray) -> bytes:
    """Draws a confusion matrix, rows true classes, darker for a larger share of the class.

    Args:
      confusion: Counts, int [C, C].

    Returns:
      A PNG of at most 64 KiB. The shade grows with the cube root of the share, as in the report,
      so that rare mistakes show.
    """
    counts = np.asarray(confusion, np.float64)
    if len(counts) > MOST_CLASSES:
        starts = np.arange(MOST_CLASSES) * len(counts) // MOST_CLASSES
        counts = np.add.reduceat(np.add.reduceat(counts, starts, 0), starts, 1)
    totals = counts.sum(1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    levels = np.rint(np.cbrt(shares) * (LEVELS - 1)).astype(np.uint8)
    times = max(1, CONFUSION_SIDE // len(levels))
    picture = Image.fromarray(np.kron(levels, np.ones((times, times), np.uint8)))
    share = np.arange(LEVELS)[:, None] / (LEVELS - 1)
    palette = np.rint(LIGHT + share * (DARK - LIGHT)).astype(np.uint8)
    picture.putpalette(palette.tobytes())
    return _encoded(picture, "PNG")


def _cpu() -> contextlib.AbstractContextManager[None]:
    """Places tensors on the CPU; where they are by default if JAX_PLATFORMS leaves it out."""
    try:
        scope: contextlib.AbstractContextManager[None] = keras.device("cpu:0")
    except RuntimeError:
        return contextlib.nullcontext()
    return scope


def _first_batch(config: Config, label_set: LabelSet, source: Source) -> Batch:
    """Makes the first rows of step 0's batch; what is fed is read for these rows alone."""
    state = registry.find(config.method).init(config, label_set)
    whole = step_draws.step_draws(config, label_set, 0)
    drawn = {name: values[:MOST_IMAGES] for name, values in whole.items()}
    for prefix, size in streaming.views(config).items():
        ids = streaming.view_ids(prefix, drawn, state.get("dictionary"))
        if source.crops is None:
            drawn[f"{prefix}images"] = source.train_images(ids)
        else:
            places = streaming.crop_draws(config.seed, prefix, 0, size)[:MOST_IMAGES]
            drawn[f"{prefix}images"] = source.crops(ids, places)
    labels = step_draws.device_data(None, label_set)
    return build_batch(labels, drawn, state, np.float32(0), config, label_set.num_classes)


def _encoded(picture: Image.Image, kind: str, **options: int) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()
