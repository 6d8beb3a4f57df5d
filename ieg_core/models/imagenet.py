# SPDX-License-Identifier: Apache-2.0
"""The ImageNet ResNets: post-activation, four stages, for large images.

Stem: 7x7 with stride 2, then 3x3 max pooling with stride 2. Depth 18 and 34 are made of basic
blocks (3x3, 3x3), the deeper ones of bottlenecks (1x1, 3x3, 1x1) with four times the width outside.
Where a stage begins, the shortcut is a 1x1 projection; the stride is that of a 3x3 convolution (in
the paper of the bottleneck's first 1x1), as in the networks that are trained today.

Reference: He et al. 2016, Deep Residual Learning for Image Recognition (arXiv:1512.03385).
"""

from typing import Final

import keras

from ieg_core.models.layers import Layers

MOMENTUM: Final = 0.997
"""Share of the old BatchNorm statistics that a training step keeps."""

_BLOCKS: Final = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
_STAGE_FILTERS: Final = (64, 128, 256, 512)
_EXPANSION: Final = 4


def features(x: keras.KerasTensor, layers: Layers, depth: int) -> keras.KerasTensor:
    """Maps images [B, H, W, ch] to feature maps [B, ⌈H/32⌉, ⌈W/32⌉, 512 or 2048]."""
    bottleneck = depth >= 50
    x = layers.convolution(x, 64, 7, 2, "stem")
    x = layers.normalize_relu(x, "stem")
    x = layers.max_pool(x, 3, 2, "stem_pool")
    for stage, (filters, blocks) in enumerate(zip(_STAGE_FILTERS, _BLOCKS[depth], strict=True), 1):
        outputs = filters * (_EXPANSION if bottleneck else 1)
        for block in range(1, blocks + 1):
            name = f"stage{stage}_block{block}"
            strides = 2 if block == 1 and stage > 1 else 1
            y = x
            if bottleneck:
                y = layers.convolution(y, filters, 1, 1, f"{name}_conv0")
                y = layers.normalize_relu(y, f"{name}_0")
            y = layers.convolution(y, filters, 3, strides, f"{name}_conv1")
            y = layers.normalize_relu(y, f"{name}_1")
            y = layers.convolution(y, outputs, 1 if bottleneck else 3, 1, f"{name}_conv2")
            y = layers.normalize(y, f"{name}_2_norm")
            if strides > 1 or x.shape[-1] != outputs:
                x = layers.convolution(x, outputs, 1, strides, f"{name}_projection")
                x = layers.normalize(x, f"{name}_projection_norm")
            x = layers.relu(layers.add(x, y, f"{name}_add"), f"{name}_relu")
    return x
