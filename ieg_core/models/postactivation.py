# SPDX-License-Identifier: Apache-2.0
"""The CIFAR ResNet: post-activation basic blocks, depth 6n + 2, parameter-free shortcuts.

Each block: 3x3-BatchNorm-ReLU-3x3-BatchNorm, added to the shortcut, ReLU. In the first block of a
stage, the shortcut keeps every second pixel and fills the new channels with zeros ("option A"); in
the form that FSR's authors released, it averages squares of 2x2 pixels instead, and the strided
convolutions have the same padding on all sides.

Reference: He et al. 2016, Deep Residual Learning for Image Recognition (arXiv:1512.03385).
"""

import keras

from ieg_core.models.layers import Layers

_STAGE_FILTERS = (16, 32, 64)


def features(
    x: keras.KerasTensor, layers: Layers, blocks_per_stage: int, *, released: bool = False
) -> keras.KerasTensor:
    """Connects images [B, H, W, ch] to feature maps [B, ⌈H/4⌉, ⌈W/4⌉, 64].

    Args:
      x: The images.
      layers: Creates the layers.
      blocks_per_stage: n.
      released: Whether to build the released form.

    Returns:
      The feature maps.
    """
    x = layers.convolution(x, _STAGE_FILTERS[0], 3, 1, "stem")
    x = layers.normalize_relu(x, "stem")
    for stage, filters in enumerate(_STAGE_FILTERS, start=1):
        for block in range(1, blocks_per_stage + 1):
            name = f"stage{stage}_block{block}"
            strides = 2 if block == 1 and stage > 1 else 1
            convolution = layers.centered_convolution if released else layers.convolution
            y = convolution(x, filters, 3, strides, f"{name}_conv1")
            y = layers.normalize_relu(y, f"{name}_1")
            y = layers.convolution(y, filters, 3, 1, f"{name}_conv2")
            y = layers.normalize(y, f"{name}_2_norm")
            if strides > 1:
                pool = strides if released else 1
                x = layers.pad_channels(x, filters, strides, f"{name}_shortcut", pool=pool)
            x = layers.relu(layers.add(x, y, f"{name}_add"), f"{name}_relu")
    return x
