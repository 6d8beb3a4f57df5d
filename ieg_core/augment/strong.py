# SPDX-License-Identifier: Apache-2.0
"""The strong view: operations of an augmentation policy, then crop, mirror and Cutout."""

from collections.abc import Mapping
from typing import Any

from ieg_core.augment.geometric import warp
from ieg_core.augment.pointwise import apply
from ieg_core.draws.policies import possible_operations
from ieg_core.experiment.config import AugmentationConfig

Tensor = Any


def strong_view(images: Tensor, draws: Mapping[str, Tensor], config: AugmentationConfig) -> Tensor:
    """Computes the strong view of raw images, each with its own draws.

    Stage s applies operation s to the gray levels, then affine map s to the positions. Except in
    the digits policy, at most one of the two has an effect. The last stage has no operation, and
    its map crops and mirrors.

    Args:
      images: The raw images, uint8 [B, H, W, ch], ch 1 or 3.
      draws: The images' rows of the arrays that `ieg_core.draws.views.strong_view_draws` returns.
      config: The configuration that the draws were made with.

    Returns:
      uint8 [B, H, W, ch].
    """
    operation, level = draws["operation"], draws["level"]
    affine, erase = draws["affine"], draws["erase"]
    possible = possible_operations(config.strong)
    for stage in range(affine.shape[1]):
        if stage < operation.shape[1]:
            images = apply(images, operation[:, stage], level[:, stage], possible)
        images = warp(images, affine[:, stage], erase[:, stage])
    return images
