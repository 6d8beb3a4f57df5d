# SPDX-License-Identifier: Apache-2.0
"""Export of a trained network as a `.keras` file that loads without this package."""

import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np

from ieg_core.data.base import Source
from ieg_core.data.label_set import LabelSet
from ieg_core.errors import UserError
from ieg_core.experiment.config import Config
from ieg_core.experiment.networks import is_custom
from ieg_core.host.files import replacing, writable
from ieg_core.models import user_network, zoo
from ieg_core.store.layout import MODEL
from ieg_core.store.model_file import ModelFacts, write_facts
from ieg_core.training.streaming import streams_from_disk

_WRITABLE: Final = (
    "layers that Keras can save and load: decorate each custom class with "
    "@keras.saving.register_keras_serializable(), return every argument of its __init__ from "
    "get_config, and do not wrap a Python lambda in a Lambda layer"
)


def export_model(
    path: Path, config: Config, label_set: LabelSet, source: Source, state: Mapping[str, Any]
) -> keras.Model:
    """Writes the averaged parameters with the raw BatchNorm statistics as a stock Keras model.

    The file also holds the class names and the preprocessing (ieg_core.store.model_file).

    The model maps images in 0 … 255, [B, H, W, channels], to logits float32 [B, C]; its first layer
    scales pixels to [−1, 1].

    Args:
      path: The file to write, ending in ".keras"; replaced atomically.
      config: Names the network.
      label_set: Class names and image shape.
      source: The images; determines how test images are preprocessed.
      state: A training state as numpy arrays; "ema" and "stats" are used.

    Returns:
      The model.

    Raises:
      UserError: When the file cannot be written.
    """
    core = zoo.stock_model(config.network, label_set.num_classes, label_set.image_shape)
    for variables, values in (
        (core.trainable_variables, state["ema"]),
        (core.non_trainable_variables, state["stats"]),
    ):
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
    model = _from_pixels(core, label_set.image_shape)
    facts = ModelFacts(
        class_names=label_set.class_names,
        image_shape=label_set.image_shape,
        preprocessing="crop" if streams_from_disk(source) else "square",
        trained_on=config.dataset,
        method=config.method,
        network=config.network,
    )
    with writable(path.parent), replacing(path) as temporary:
        model.save(temporary)
        write_facts(temporary, facts)
    return model


def require_exportable(config: Config, label_set: LabelSet) -> None:
    """Saves a user's own network before training, loads it, and compares the two.

    Without this check, a network that Keras cannot save would fail only after the last step.

    Raises:
      UserError: When Keras cannot save or load the network, or the loaded one computes other
        logits.
    """
    if not is_custom(config.network):
        return
    shape = label_set.image_shape
    model = _from_pixels(zoo.stock_model(config.network, label_set.num_classes, shape), shape)
    pixels = np.random.default_rng(0).uniform(0, 255, (2, *shape)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they repeat what is raised below
        path = Path(folder) / MODEL
        try:
            model.save(path)
            again = keras.saving.load_model(path, compile=False)
        except Exception as error:
            reason = user_network.describe(error)
            raise UserError(
                f"the network {config.network!r} cannot be exported ({reason}): expected "
                f"{_WRITABLE}"
            ) from error
    expected, loaded = (
        keras.ops.convert_to_numpy(each(pixels, training=False)) for each in (model, again)
    )
    if not np.allclose(loaded, expected, rtol=1e-3, atol=1e-4):
        raise UserError(
            f"the network {config.network!r} gives different logits after saving and loading "
            f"(by up to {np.abs(loaded - expected).max():.2g}): expected {_WRITABLE}"
        )


def _from_pixels(core: keras.Model, shape: tuple[int, int, int]) -> keras.Model:
    """Prepends the scaling of pixels in 0 … 255 to [−1, 1] to a network."""
    pixels = keras.Input(shape, name="pixels")
    scaled = keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="to_unit_range")(pixels)
    return keras.Model(pixels, core(scaled), name=core.name)
