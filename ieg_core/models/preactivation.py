# SPDX-License-Identifier: Apache-2.0
"""Pre-activation networks of basic blocks: `preact8` and the Wide ResNets.

Each block: BatchNorm-ReLU-3x3, BatchNorm-ReLU-3x3, added to the shortcut. If the width or the
resolution changes, the shortcut is a 1x1 projection of the block's *activated* input; otherwise it
is the raw input.

The form that the authors of IEG and FSR released (their Wide ResNets come from AutoAugment's code)
has shortcuts without parameters, the mean of 2x2 pixels and zero channels, and three more of them,
around each stage and one around all stages. Only the first block's shortcut starts from its
activated input.

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
    *,
    released: bool = False,
) -> keras.KerasTensor:
    """Connects images [B, H, W, ch] to feature maps [B, ⌈H/4⌉, ⌈W/4⌉, stage_filters[-1]].

    Args:
      x: The images.
      layers: Creates the layers.
      blocks_per_stage: Number of blocks in each stage.
      stem_filters: Output channels of the stem.
      stage_filters: Output channels of each of the three stages.
      released: Whether to build the released form.

    Returns:
      The feature maps.
    """
    if released:
        return _released(x, layers, blocks_per_stage, stem_filters, stage_filters)
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


def _released(
    x: keras.KerasTensor,
    layers: Layers,
    blocks_per_stage: int,
    stem_filters: int,
    stage_filters: tuple[int, ...],
) -> keras.KerasTensor:
    x = before_all = layers.convolution(x, stem_filters, 3, 1, "stem")
    for stage, filters in enumerate(stage_filters, start=1):
        before_stage = x
        strides = 2 if stage > 1 else 1
        for block in range(1, blocks_per_stage + 1):
            name = f"stage{stage}_block{block}"
            y = layers.normalize_relu(x, f"{name}_1")
            if stage == block == 1:
                x = y
            y = layers.convolution(y, filters, 3, strides if block == 1 else 1, f"{name}_conv1")
            y = layers.normalize_relu(y, f"{name}_2")
            y = layers.convolution(y, filters, 3, 1, f"{name}_conv2")
            if block == 1:
                x = layers.pad_channels(x, filters, strides, f"{name}_shortcut", pool=strides)
            x = layers.add(x, y, f"{name}_add")
        name = f"stage{stage}"
        skip = layers.pad_channels(before_stage, filters, strides, f"{name}_shortcut", pool=strides)
        x = layers.add(x, skip, f"{name}_add")
    skip = layers.pad_channels(before_all, stage_filters[-1], 4, "shortcut", pool=4)
    return layers.normalize_relu(layers.add(x, skip, "add"), "final")
