# SPDX-License-Identifier: Apache-2.0
"""Pre-activation networks of basic blocks: `preact8` and the Wide ResNets.

Each block: BatchNorm-ReLU-3x3, BatchNorm-ReLU-3x3, added to the shortcut. If the width or the
resolution changes, the shortcut is a 1x1 projection of the block's *activated* input; otherwise it
is the raw input.

Reference: Zagoruyko & Komodakis 2016, Wide Residual Networks (arXiv:1605.07146).
"""

import keras

from ieg_core.models.layers import Layers


def features(
    x: keras.KerasTensor,
    layers: Layers,
    blocks_per_stage: int,
    stem_filters: int,
    stage_filters: tuple[int, ...],
) -> keras.KerasTensor:
    """Connects images [B, H, W, ch] to feature maps [B, ⌈H/4⌉, ⌈W/4⌉, stage_filters[-1]].

    Args:
      x: The images.
      layers: Creates the layers.
      blocks_per_stage: Number of blocks in each stage.
      stem_filters: Output channels of the stem.
      stage_filters: Output channels of each of the three stages.

    Returns:
      The feature maps.
    """
    x = layers.convolution(x, stem_filters, 3, 1, "stem")
    for stage, filters in enumerate(stage_filters, start=1):
        for block in range(1, blocks_per_stage + 1):
            name = f"stage{stage}_block{block}"
            strides = 2 if block == 1 and stage > 1 else 1
            y = layers.normalize_relu(x, f"{name}_1")
            if strides > 1 or x.shape[-1] != filters:
                x = layers.convolution(y, filters, 1, strides, f"{name}_projection")
            y = layers.convolution(y, filters, 3, strides, f"{name}_conv1")
            y = layers.normalize_relu(y, f"{name}_2")
            y = layers.convolution(y, filters, 3, 1, f"{name}_conv2")
            x = layers.add(x, y, f"{name}_add")
    return layers.normalize_relu(x, "final")
