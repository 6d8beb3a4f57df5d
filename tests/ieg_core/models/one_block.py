# SPDX-License-Identifier: Apache-2.0
"""A network of one block, for tests of every method: a compiler takes a third of preact8's time."""

import keras

from ieg_core.models import preactivation
from ieg_core.models.layers import Layers
from ieg_core.models.normalization import BatchNormalization


def build(
    num_classes: int,
    image_shape: tuple[int, int, int],
    *,
    dtype: str = "float32",
    synchronized: bool = True,
) -> keras.Model:
    """Builds a stem, a block with a projection and the head; its initial values are preact8's."""

    def normalization(name: str) -> keras.Layer:
        return BatchNormalization(synchronized=synchronized, name=name, dtype=dtype)

    layers = Layers(dtype, dtype, normalization)
    images = keras.Input(image_shape, dtype=dtype, name="images")
    maps = preactivation.features(images, layers, 1, 8, (16,))
    return keras.Model(images, list(layers.head(maps, num_classes)), name="preact8")
