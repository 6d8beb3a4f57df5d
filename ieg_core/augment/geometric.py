# SPDX-License-Identifier: Apache-2.0
"""Affine maps and blanked rectangles, a separate one for each image of a batch."""

from typing import Any

from keras import ops

from ieg_core.draws.operations import GRAY

Tensor = Any


def warp(images: Tensor, affine: Tensor, erase: Tensor) -> Tensor:
    """Resamples pixels by nearest neighbor, as Pillow does, then blanks a rectangle.

    out[y, x] = in[(D·x + E·y + F) >> 16, (A·x + B·y + C) >> 16]

    Blanked pixels, and pixels that map outside the image, become mid-gray.

    Args:
      images: uint8 [B, H, W, ch].
      affine: (A, B, C, D, E, F) of each image, see `operations.fixed_point`, int32 [B, 6].
      erase: The rectangle [top, bottom) × [left, right) of each image, int32 [B, 4]; empty where
        bottom ≤ top.

    Returns:
      uint8 [B, H, W, ch].
    """
    batch, height, width, channels = images.shape
    column = ops.arange(width, dtype="int32")[None, None, :]
    row = ops.arange(height, dtype="int32")[None, :, None]
    a, b, c, d, e, f = (affine[:, index, None, None] for index in range(6))
    x = ops.right_shift(a * column + (b * row + c), 16)
    y = ops.right_shift(d * column + (e * row + f), 16)
    top, bottom, left, right = (erase[:, index, None, None] for index in range(4))
    blank = (row >= top) & (row < bottom) & (column >= left) & (column < right)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height) & ~blank
    image = ops.arange(batch, dtype="int32")[:, None, None]
    # One gray pixel after the last image represents everything outside.
    source = ops.where(inside, (image * height + y) * width + x, batch * height * width)
    gray = ops.full((1, channels), GRAY, dtype="uint8")
    pixels = ops.concatenate([ops.reshape(images, (-1, channels)), gray], axis=0)
    return ops.take(pixels, source, axis=0)
