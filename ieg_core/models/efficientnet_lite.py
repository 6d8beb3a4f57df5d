# SPDX-License-Identifier: Apache-2.0
"""EfficientNet-Lite without its classifier: images to 1280 features.

Seven stages of inverted residual blocks: a 1x1 convolution to six times the channels (in the first
stage, none), a depthwise convolution, a 1x1 projection, and a shortcut if the shape is unchanged.
Differences from EfficientNet: ReLU6 instead of swish, no squeeze-and-excite, and unscaled stem and
last convolution. Padding is TensorFlow's SAME, which at stride 2 puts the odd pixel below and to
the right.

References: Tan and Le, ICML 2019 (arXiv:1905.11946); Liu et al. 2020, "Higher accuracy on vision
models with EfficientNet-Lite".
"""

from typing import Final

import keras

from ieg_core import backend
from ieg_core.models.efficientnet_weights import STEM_FILTERS, blocks_of, find

FEATURES: Final = 1280
MEAN, SCALE = 127.0, 128.0
"""Input normalization: (x − 127) / 128 for x in [0, 255]."""


class DepthwiseSums(keras.layers.DepthwiseConv2D):
    """A depthwise convolution as a sum of shifted products: the same function, for JAX on a CPU.

    XLA's own took 50 ms an image for the whole network on a CPU, these sums 12 (docs/RESULTS.md).
    """

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        """Convolves images [B, H, W, C] with SAME padding."""
        (size, _), (stride, _) = self.kernel_size, self.strides
        reach, padding = [], [(0, 0)]
        for side in inputs.shape[1:3]:
            reached = (-(-side // stride) - 1) * stride + 1
            missing = max(reached + size - 1 - side, 0)
            reach.append(reached)
            padding.append((missing // 2, missing - missing // 2))
        padded = keras.ops.pad(inputs, (*padding, (0, 0)))
        kernel = keras.ops.convert_to_tensor(self.kernel)
        total = keras.ops.convert_to_tensor(self.bias)
        for down in range(size):
            for right in range(size):
                rows = slice(down, down + reach[0], stride)
                columns = slice(right, right + reach[1], stride)
                total = total + padded[:, rows, columns] * kernel[down, right, :, 0]
        return total


def build(name: str, size: int, dtype: str = "float32") -> keras.Model:
    """Builds a network with zero weights; load them with `set_weights(load_weights(name))`.

    Args:
      name: One of `NETWORKS`.
      size: Side of the images in pixels.
      dtype: Keras dtype policy of the convolutions, "float32" or "bfloat16".

    Returns:
      A model from images [B, size, size, 3] in [0, 255], of any numeric type, to features, float32
      [B, 1280].

    Raises:
      UserError: When there is no such network.
    """
    lite = find(name)
    is_slow = keras.config.backend() == "jax" and not backend.accelerators()
    depthwise = DepthwiseSums if is_slow else keras.layers.DepthwiseConv2D

    def convolve(x: keras.KerasTensor, kernel: int, filters: int, stride: int) -> keras.KerasTensor:
        return keras.layers.Conv2D(
            filters, kernel, stride, "same", kernel_initializer="zeros", dtype=dtype
        )(x)

    def relu6(x: keras.KerasTensor) -> keras.KerasTensor:
        return keras.layers.ReLU(6.0, dtype=dtype)(x)

    images = keras.Input((size, size, 3), dtype="uint8")
    x = keras.layers.Rescaling(1 / SCALE, -MEAN / SCALE, dtype="float32")(images)
    x = relu6(convolve(x, 3, STEM_FILTERS, 2))
    for block in blocks_of(lite):
        y = x
        if block.expansion > 1:
            y = relu6(convolve(y, 1, block.inputs * block.expansion, 1))
        y = depthwise(
            block.kernel, block.stride, "same", depthwise_initializer="zeros", dtype=dtype
        )(y)
        y = convolve(relu6(y), 1, block.filters, 1)
        x = keras.layers.Add(dtype=dtype)([x, y]) if block.has_shortcut else y
    x = relu6(convolve(x, 1, FEATURES, 1))
    return keras.Model(images, keras.layers.GlobalAveragePooling2D(dtype="float32")(x), name=name)
