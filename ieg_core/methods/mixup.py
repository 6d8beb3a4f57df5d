# SPDX-License-Identifier: Apache-2.0
"""MixUp with drawn partners and coefficients, over all replicas.

    x̃_i = β_i x_i + (1 − β_i) x_{π(i)},   ỹ_i = β_i y_i + (1 − β_i) y_{π(i)}

β_i ~ Beta(α, α), then β_i ← max(β_i, 1 − β_i), so that an example keeps the larger share;
`ieg_core.training.step_draws` draws it.

Reference: Zhang et al. 2018, mixup (arXiv:1710.09412).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from keras import ops

Tensor = Any


class Mixing(NamedTuple):
    """The draws for MixUp of K concatenated blocks of B images each.

    Attributes:
      partners: The partner of each example of each block, among all K·B, int32 [B, K].
      coefficients: The share of the example itself, float32 [B, K].
      probe_choice: Positions in the probe batch, drawn with replacement, int32 [B], or None.
    """

    partners: Tensor
    coefficients: Tensor
    probe_choice: Tensor | None


def mix_blocks(
    images: Sequence[Tensor],
    labels: Sequence[Tensor],
    partners: Tensor,
    coefficients: Tensor,
    gather_replicas: Callable[[Tensor], Tensor],
) -> tuple[list[Tensor], list[Tensor]]:
    """Mixes each example of K blocks with its partner in any block.

    Args:
      images: K blocks, each float [B, H, W, channels], this replica's rows.
      labels: K blocks of distributions, each float [B, C].
      partners: π, int32 [B, K]: positions in the K concatenated global blocks.
      coefficients: β, float32 [B, K].
      gather_replicas: Concatenates the rows of all replicas.

    Returns:
      K mixed blocks of images and of labels.
    """
    pool_images = ops.concatenate([gather_replicas(block) for block in images])
    pool_labels = ops.concatenate([gather_replicas(block) for block in labels])
    mixed_images, mixed_labels = [], []
    for index, (own_images, own_labels) in enumerate(zip(images, labels, strict=True)):
        partner = partners[:, index]
        share = coefficients[:, index]
        pixel_share, class_share = share[:, None, None, None], share[:, None]
        other_images = ops.take(pool_images, partner, axis=0)
        other_labels = ops.take(pool_labels, partner, axis=0)
        mixed_images.append(pixel_share * own_images + (1.0 - pixel_share) * other_images)
        mixed_labels.append(class_share * own_labels + (1.0 - class_share) * other_labels)
    return mixed_images, mixed_labels


def mix_batch(
    images: Tensor,
    labels: Tensor,
    mixing: Mixing | None,
    gather_replicas: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """Mixes each example of a batch with its partner: `mix_blocks` for one block.

    Args:
      images: float [B, H, W, channels], this replica's rows.
      labels: Distributions, float [B, C].
      mixing: The draws for one block.
      gather_replicas: Concatenates the rows of all replicas.

    Returns:
      Mixed images and labels.

    Raises:
      TypeError: When `mixing` is None.
    """
    if mixing is None:
        raise TypeError("mixing is None: expected the draws for MixUp")
    mixed_images, mixed_labels = mix_blocks(
        [images], [labels], mixing.partners, mixing.coefficients, gather_replicas
    )
    return mixed_images[0], mixed_labels[0]
