# SPDX-License-Identifier: Apache-2.0
"""Operations on gray levels and neighboring pixels, a separate one for each image of a batch.

Each pixel is one look-up in one table. The row is the first row of the image's operation and level,
plus an anchor; the column is the pixel's value. The anchor is the value that an enhancer blends
with: the image's mean for Contrast, the pixel's luma for Color, the smoothed pixel for Sharpness,
and 0 for all others. Only AutoContrast and Equalize need rows computed from the image; these rows
are appended to the table.
"""

import functools
import operator
from collections.abc import Iterable, Set
from typing import Any

from keras import ops

from ieg_core.augment import tables
from ieg_core.draws.operations import Operation

Tensor = Any
_MEASURED = frozenset({Operation.AUTO_CONTRAST, Operation.EQUALIZE})
_ANCHORED = frozenset({Operation.CONTRAST, Operation.COLOR, Operation.SHARPNESS})


def apply(
    images: Tensor,
    operation: Tensor,
    level: Tensor,
    possible: Set[Operation] = frozenset(Operation),
) -> Tensor:
    """Applies one pointwise or neighborhood operation to each image, as Pillow does.

    Args:
      images: uint8 [B, H, W, ch], ch 1 or 3; Color does not change one-channel images.
      operation: `Operation` of each image, int32 [B]; geometric operations have no effect here.
      level: The operation's level for each image, int32 [B].
      possible: The operations that can occur; work that only other operations need is skipped.

    Returns:
      uint8 [B, H, W, ch].
    """
    batch, _, _, channels = images.shape
    rows, first = tables.pointwise()
    pixels = ops.cast(images, "int32")
    table = ops.reshape(ops.convert_to_tensor(rows), (-1,))
    row = _per_image(
        ops.take(ops.reshape(first, (-1,)), operation * first.shape[1] + level, axis=0)
    )
    if possible & _MEASURED:
        measured = _measured_rows(images, operation)
        table = ops.concatenate([table, ops.reshape(measured, (-1,))], axis=0)
        appended = len(rows) + ops.arange(batch * channels, dtype="int32")
        row = ops.where(
            _per_image(_is_any(operation, _MEASURED)),
            ops.reshape(appended, (batch, 1, 1, channels)),
            row,
        )
    if possible & _ANCHORED:
        row = row + _anchor(pixels, operation)
    return ops.take(table, row * 256 + pixels, axis=0)


def smooth(pixels: Tensor) -> Tensor:
    """Smooths like Pillow's SMOOTH: ⌊(Σ of the 3×3 pixels + 4·center) / 13 + ½⌋, edges copied.

    Args:
      pixels: int32 [B, H, W, ch].

    Returns:
      int32 [B, H, W, ch].
    """
    columns = pixels[:, :, :-2] + pixels[:, :, 1:-1] + pixels[:, :, 2:]
    box = columns[:, :-2] + columns[:, 1:-1] + columns[:, 2:]
    inner = (box + 4 * pixels[:, 1:-1, 1:-1] + 6) // 13
    middle = ops.concatenate([pixels[:, 1:-1, :1], inner, pixels[:, 1:-1, -1:]], axis=2)
    return ops.concatenate([pixels[:, :1], middle, pixels[:, -1:]], axis=1)


def luma(pixels: Tensor) -> Tensor:
    """Returns the gray levels of pixels, by ITU-R 601 as in Pillow.

    L = (19595·R + 38470·G + 7471·B + 2¹⁵) >> 16

    Args:
      pixels: int32 [B, H, W, ch], ch 1 or 3.

    Returns:
      int32 [B, H, W, 1].
    """
    if pixels.shape[-1] == 1:
        return pixels
    red, green, blue = (pixels[..., channel : channel + 1] for channel in range(3))
    return ops.right_shift(19595 * red + 38470 * green + 7471 * blue + (1 << 15), 16)


def histograms(images: Tensor) -> Tensor:
    """Counts the gray levels of each channel of each image.

    counts[16·h + l] = Σ_p [v_p div 16 = h]·[v_p mod 16 = l]

    This product of two one-hot matrices is exact in float32 and, unlike scatter-add, fast and
    deterministic on every device.

    Args:
      images: uint8 [B, H, W, ch].

    Returns:
      int32 [B, ch, 256].
    """
    batch, height, width, channels = images.shape
    values = ops.reshape(ops.transpose(images, (0, 3, 1, 2)), (batch * channels, 1, height * width))
    digits = ops.reshape(ops.cast(ops.arange(16), "uint8"), (1, 16, 1))
    high = ops.cast(ops.right_shift(values, 4) == digits, "float32")
    low = ops.cast(ops.bitwise_and(values, ops.cast(15, "uint8")) == digits, "float32")
    counts = ops.matmul(high, ops.transpose(low, (0, 2, 1)))
    return ops.reshape(ops.cast(counts, "int32"), (batch, channels, 256))


def _anchor(pixels: Tensor, operation: Tensor) -> Tensor:
    gray = luma(pixels)
    size = pixels.shape[1] * pixels.shape[2]
    mean = (2 * ops.sum(gray, axis=(1, 2, 3), keepdims=True) + size) // (2 * size)
    anchor = ops.where(_per_image(operation == Operation.CONTRAST), mean, 0)
    anchor = ops.where(_per_image(operation == Operation.COLOR), gray, anchor)
    return ops.where(_per_image(operation == Operation.SHARPNESS), smooth(pixels), anchor)


def _measured_rows(images: Tensor, operation: Tensor) -> Tensor:
    counts = histograms(images)
    is_equalize = (operation == Operation.EQUALIZE)[:, None, None]
    return ops.where(is_equalize, _equalize_rows(counts), _autocontrast_rows(counts))


def _autocontrast_rows(counts: Tensor) -> Tensor:
    grays = ops.arange(256, dtype="int32")
    present = counts > 0
    low = ops.min(ops.where(present, grays, 255), axis=-1, keepdims=True)
    high = ops.max(ops.where(present, grays, 0), axis=-1, keepdims=True)
    shortfall = ops.take(
        ops.convert_to_tensor(tables.autocontrast_shortfall()), low * 256 + high, axis=0
    )
    bits = ops.right_shift(
        ops.reshape(ops.cast(shortfall, "int32"), (*counts.shape[:2], 32, 1)),
        ops.arange(8, dtype="int32"),
    )
    short = ops.reshape(ops.bitwise_and(bits, 1), counts.shape)
    stretched = (grays - low) * 255 // ops.maximum(high - low, 1) - short
    return ops.cast(ops.where(high > low, ops.clip(stretched, 0, 255), grays), "uint8")


def _equalize_rows(counts: Tensor) -> Tensor:
    # Sums of counts stay below 2²⁴, where float32 is exact; an integer cumsum would leave the GPU.
    below = ops.cast(ops.cumsum(ops.cast(counts, "float32"), axis=-1), "int32") - counts
    all_but_brightest = ops.max(ops.where(counts > 0, below, 0), axis=-1, keepdims=True)
    step = all_but_brightest // 255
    levels = (step // 2 + below) // ops.maximum(step, 1)
    grays = ops.arange(256, dtype="int32")
    return ops.cast(ops.where(step > 0, ops.minimum(levels, 255), grays), "uint8")


def _is_any(operation: Tensor, kinds: Iterable[Operation]) -> Tensor:
    return functools.reduce(operator.or_, (operation == kind for kind in kinds))


def _per_image(values: Tensor) -> Tensor:
    return values[:, None, None, None]
