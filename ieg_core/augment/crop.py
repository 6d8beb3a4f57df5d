# SPDX-License-Identifier: Apache-2.0
"""The weak view, and scaling to the range that networks expect."""

from typing import Any

from keras import ops

Tensor = Any


def crop_and_flip(
    images: Tensor, offset_y: Tensor, offset_x: Tensor, flip: Tensor, pad: int
) -> Tensor:
    """Pads with black, crops back to the original size, then mirrors some images.

    out[b, y, x] = padded[b, y + offset_y[b], x' + offset_x[b]],  x' = W − 1 − x if flip[b] else x

    Args:
      images: uint8 [B, H, W, ch].
      offset_y: First row of the crop in the padded image, int32 [B] in 0 … 2·pad.
      offset_x: First column, int32 [B] in 0 … 2·pad.
      flip: Whether to mirror left and right, bool [B].
      pad: Rows and columns of zeros added on each side, in pixels.

    Returns:
      uint8 [B, H, W, ch].
    """
    batch, height, width, channels = ops.shape(images)
    padded_height, padded_width = height + 2 * pad, width + 2 * pad
    padded = ops.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    column = ops.arange(width, dtype="int32")[None, :]
    columns = ops.where(flip[:, None], width - 1 - column, column) + offset_x[:, None]
    rows = ops.arange(height, dtype="int32")[None, :] + offset_y[:, None]
    rows = rows + padded_height * ops.arange(batch, dtype="int32")[:, None]
    # One gather of whole pixels from the flattened batch is the fastest form on a CPU.
    pixels = rows[:, :, None] * padded_width + columns[:, None, :]
    return ops.take(ops.reshape(padded, (-1, channels)), pixels, axis=0)


def to_unit_range(images: Tensor) -> Tensor:
    """Scales images, uint8 [...], to float32 [...] in [−1, 1]: x / 127.5 − 1."""
    return ops.cast(images, "float32") / 127.5 - 1.0
