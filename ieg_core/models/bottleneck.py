# SPDX-License-Identifier: Apache-2.0
"""Pre-activation bottleneck ResNet for small images, depth 9n + 2.

Each block: BatchNorm-ReLU-1x1, BatchNorm-ReLU-3x3, BatchNorm-ReLU-1x1, added to the shortcut. In
the first block of a stage, the shortcut is a plain 1x1 projection of the raw input, and the first
convolution has the stride. The very first block has no initial BatchNorm, since it follows the
stem's. The inner width of a stage is the input width of its first block: 16, 64 and 128 for outer
widths of 64, 128 and 256.

The form that the authors of IEG and FSR released has no ReLU before each block's first convolution
(an argument of theirs is set once and never reset).

Reference: He et al. 2016, Identity Mappings in Deep Residual Networks (arXiv:1603.05027).
"""

import keras

from ieg_core.models.layers import Layers

_STEM_FILTERS = 16
_STAGE_FILTERS = (64, 128, 256)


def features(
    x: keras.KerasTensor, layers: Layers, blocks_per_stage: int, *, released: bool = False
) -> keras.KerasTensor:
    """Connects images [B, H, W, ch] to feature maps [B, ⌈H/4⌉, ⌈W/4⌉, 256].

    Args:
      x: The images.
      layers: Creates the layers.
      blocks_per_stage: n.
      released: Whether to build the released form.

    Returns:
      The feature maps.
    """
    x = layers.convolution(x, _STEM_FILTERS, 3, 1, "stem")
    x = layers.normalize_relu(x, "stem")
    inner = _STEM_FILTERS
    for stage, filters in enumerate(_STAGE_FILTERS, start=1):
        for block in range(1, blocks_per_stage + 1):
            name = f"stage{stage}_block{block}"
            first = block == 1
            strides = 2 if first and stage > 1 else 1
            if first and stage == 1:
                y = x
            elif released:
                y = layers.normalize(x, f"{name}_1_norm")
            else:
                y = layers.normalize_relu(x, f"{name}_1")
            y = layers.convolution(y, inner, 1, strides, f"{name}_conv1")
            y = layers.normalize_relu(y, f"{name}_2")
            y = layers.convolution(y, inner, 3, 1, f"{name}_conv2")
            y = layers.normalize_relu(y, f"{name}_3")
            y = layers.convolution(y, filters, 1, 1, f"{name}_conv3")
            if first:
                x = layers.convolution(x, filters, 1, strides, f"{name}_projection")
            x = layers.add(x, y, f"{name}_add")
        inner = filters
    return layers.normalize_relu(x, "final")
