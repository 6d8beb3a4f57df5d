# SPDX-License-Identifier: Apache-2.0
"""Small pictures of a run for TensorBoard: the network's inputs and its confusion matrix."""

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
"""Maximum rows in the picture of a confusion matrix; with more classes, neighbors share a pixel."""
CONFUSION_SIDE = 240
LIGHT, DARK = np.array([247, 251, 255.0]), np.array([8, 48, 107.0])
LEVELS = 64


def first_views(config: Config, label_set: LabelSet, source: Source) -> Mapping[str, bytes]:
    """Draws the training images of step 0 as the network sees them, after augmentation.

    They are recomputed on the CPU from the draws of the step, which are a pure function of the
    seed; the training is not involved.

    Args:
      config: The run's configuration.
      label_set: The prepared labels and splits.
      source: The images.

    Returns:
      Pictures by TensorBoard tag: "train/weak_view", "train/strong_view" and "train/probe_view",
      where the method uses them. The weak and the strong view show the same examples in the same
      order.
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
    """Inverts `augment.to_unit_range`: from [−1, 1] to uint8."""
    return np.rint((images + 1.0) * 127.5).clip(0, 255).astype(np.uint8)


def grid(images: np.ndarray) -> bytes:
    """Arranges images in a grid.

    Args:
      images: uint8 [n, H, W, channels] with n ≥ 1 and 1 or 3 channels.

    Returns:
      A PNG, or a JPEG if the PNG would exceed 64 KiB. Small images are enlarged by a whole factor,
      large ones are scaled down.
    """
    height, width = images.shape[1:3]
    scale = min(1.0, LARGEST_TILE / max(height, width))
    times = max(1, SMALLEST_TILE // max(height, width))
    size = (max(1, round(width * scale)) * times, max(1, round(height * scale)) * times)
    resampling = Image.Resampling.BOX if scale < 1 else Image.Resampling.NEAREST
    colors = np.repeat(images, 3, -1) if images.shape[-1] == 1 else images
    rows = -(-len(images) // COLUMNS)
    columns = min(COLUMNS, len(images))
    sheet = Image.new("RGB", (columns * (size[0] + 2) - 2, rows * (size[1] + 2) - 2), "white")
    for place, image in enumerate(colors):
        row, column = divmod(place, COLUMNS)
        tile = Image.fromarray(image).resize(size, resampling)
        sheet.paste(tile, (column * (size[0] + 2), row * (size[1] + 2)))
    encoded = _encoded(sheet, "PNG")
    return encoded if len(encoded) <= MOST_BYTES else _encoded(sheet, "JPEG", quality=75)


def confusion_picture(confusion: np.ndarray) -> bytes:
    """Draws a confusion matrix: rows are true classes, darker pixels larger shares of a row.

    Args:
      confusion: Counts, int [C, C].

    Returns:
      A PNG of at most 64 KiB. The shade is proportional to the cube root of the share, as in the
      report, so that rare mistakes are visible.
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
    """Places tensors on the CPU, or on the default device if JAX_PLATFORMS excludes the CPU."""
    try:
        scope: contextlib.AbstractContextManager[None] = keras.device("cpu:0")
    except RuntimeError:
        return contextlib.nullcontext()
    return scope


def _first_batch(config: Config, label_set: LabelSet, source: Source) -> Batch:
    """Builds the first rows of step 0's batch; streamed images are read for these rows only."""
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
