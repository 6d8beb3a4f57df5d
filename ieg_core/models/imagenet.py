# SPDX-License-Identifier: Apache-2.0
"""The ImageNet ResNets: post-activation, four stages, for large images.

Stem: 7x7 with stride 2, then 3x3 max pooling with stride 2. Depths 18 and 34 use basic blocks
(3x3, 3x3), deeper networks use bottlenecks (1x1, 3x3, 1x1) whose outer width is four times the
inner one. The first block of a stage has a 1x1 projection as shortcut. The stride is in a 3x3
convolution, as in current implementations; the paper has it in the bottleneck's first 1x1.

The form that the authors of IEG and FSR released for depth 50, from TensorFlow's official models,
is the second version of these networks: BatchNorm-ReLU before each convolution but the stem's and
once after the last block, projections of a block's activated input without BatchNorm, and strided
convolutions with the same padding on all sides. It also decays the scales and biases, which this
package does not, and draws kernels with half the variance.

Reference: He et al. 2016, Deep Residual Learning for Image Recognition (arXiv:1512.03385);
Identity Mappings in Deep Residual Networks (arXiv:1603.05027).
"""

from typing import Final

import keras

from ieg_core.models.layers import Layers

MOMENTUM: Final = 0.997
"""Share of the previous BatchNorm statistics that a training step keeps."""

_BLOCKS: Final = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
_STAGE_FILTERS: Final = (64, 128, 256, 512)
_EXPANSION: Final = 4


def features(
    x: keras.KerasTensor, layers: Layers, depth: int, *, released: bool = False
) -> keras.KerasTensor:
    """Connects images [B, H, W, ch] to feature maps [B, ⌈H/32⌉, ⌈W/32⌉, 512 or 2048].

    Args:
      x: The images.
      layers: Creates the layers.
      depth: 18, 34, 50, 101 or 152.
      released: Whether to build the released form, of depth 50 or more.

    Returns:
      The feature maps.
    """
    if released:
        return _released(x, layers, depth)
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


def _released(x: keras.KerasTensor, layers: Layers, depth: int) -> keras.KerasTensor:
    x = layers.centered_convolution(x, 64, 7, 2, "stem")
    x = layers.max_pool(x, 3, 2, "stem_pool")
    for stage, (filters, blocks) in enumerate(zip(_STAGE_FILTERS, _BLOCKS[depth], strict=True), 1):
        for block in range(1, blocks + 1):
            name = f"stage{stage}_block{block}"
            strides = 2 if block == 1 and stage > 1 else 1
            y = layers.normalize_relu(x, f"{name}_0")
            if block == 1:
                x = layers.convolution(y, filters * _EXPANSION, 1, strides, f"{name}_projection")
            y = layers.convolution(y, filters, 1, 1, f"{name}_conv0")
            y = layers.normalize_relu(y, f"{name}_1")
            y = layers.centered_convolution(y, filters, 3, strides, f"{name}_conv1")
            y = layers.normalize_relu(y, f"{name}_2")
            y = layers.convolution(y, filters * _EXPANSION, 1, 1, f"{name}_conv2")
            x = layers.add(x, y, f"{name}_add")
    return layers.normalize_relu(x, "final")
