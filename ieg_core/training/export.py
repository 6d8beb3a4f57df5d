# SPDX-License-Identifier: Apache-2.0
"""Export of a trained network as a `.keras` file that loads without this package."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from ieg_core import models
from ieg_core.config import Config
from ieg_core.data.overlay import Overlay
from ieg_core.data.source import Source
from ieg_core.model_file import ModelFacts, write_facts
from ieg_core.results import writable
from ieg_core.training.feed import is_fed


def export_model(
    path: Path, config: Config, overlay: Overlay, source: Source, state: Mapping[str, Any]
) -> keras.Model:
    """Writes the averaged parameters with the raw BatchNorm statistics as a stock Keras model.

    Class names and preprocessing go with it, inside the same file (ieg_core.model_file).

    The model takes images in 0 … 255, [B, H, W, channels], and returns logits [B, C]; the scaling
    to [−1, 1] is its first layer.

    Args:
      path: The file to write, ending in ".keras"; replaced atomically.
      config: Names the network.
      overlay: Number of classes and image shape.
      source: The images under it, which says how test images are cut.
      state: A training state as numpy arrays.

    Returns:
      The model.

    Raises:
      UserError: The file cannot be written.
    """
    shape = overlay.image_shape
    core = models.stock_model(config.network, overlay.num_classes, shape)
    for variables, values in (
        (core.trainable_variables, state["ema"]),
        (core.non_trainable_variables, state["stats"]),
    ):
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
    pixels = keras.Input(shape, name="pixels")
    scaled = keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="to_unit_range")(pixels)
    model = keras.Model(pixels, core(scaled), name=core.name)
    facts = ModelFacts(
        class_names=overlay.class_names,
        image_shape=shape,
        preprocessing="crop" if is_fed(source) else "square",
        trained_on=config.dataset,
        method=config.method,
        network=config.network,
    )
    with writable(path.parent):
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".keras")
        os.close(handle)
        try:
            model.save(temporary)
            write_facts(Path(temporary), facts)
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    return model
