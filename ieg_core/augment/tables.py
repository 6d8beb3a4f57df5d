# SPDX-License-Identifier: Apache-2.0
"""Look-up tables of the pointwise operations, computed once on the host as Pillow computes them.

A row of the table maps a pixel's 256 grey levels. Every operation but AutoContrast and Equalize
finds its rows here, so both backends, with or without fused arithmetic, give Pillow's very bits.
"""

import functools

import numpy as np
from numpy.typing import NDArray

from ieg_core.draws.operations import (
    MAX_LEVEL,
    NUM_FINE_LEVELS,
    Operation,
    enhancement_factor,
    fine_brightness_factor,
    posterize_bits,
    solarize_addition,
    solarize_threshold,
)

_GREYS = np.arange(256)


def blend(anchor: NDArray[np.int64], image: NDArray[np.int64], factor: float) -> NDArray[np.uint8]:
    """Blends grey levels in float32, cut off towards zero: anchor + factor·(image − anchor).

    Args:
      anchor: What factor 0 gives, in 0 … 255.
      image: What factor 1 gives, in 0 … 255; of a shape that broadcasts with `anchor`.
      factor: Above 1 it leads away from the anchor.

    Returns:
      uint8, limited to 0 … 255.
    """
    mixed = anchor.astype(np.float32) + np.float32(factor) * (image - anchor).astype(np.float32)
    return np.clip(mixed, 0, 255).astype(np.uint8)


@functools.cache
def pointwise() -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Builds the table of all operations and levels.

    Returns:
      The rows, uint8 [R, 256], and where to look: int32 [operations, levels], the first row of an
      operation at a level. Color, Contrast and Sharpness have 256 rows there, one for each grey
      level of what they blend with; the geometric operations have the row that changes nothing.
    """
    levels = range(MAX_LEVEL + 1)
    blends = [blend(_GREYS[:, None], _GREYS, enhancement_factor(level)) for level in levels]
    single = {
        Operation.IDENTITY: [_GREYS],
        Operation.INVERT: [255 - _GREYS],
        Operation.POSTERIZE: [_GREYS & -(1 << 8 - posterize_bits(level)) for level in levels],
        Operation.SOLARIZE: [
            np.where(solarize_threshold(level) > _GREYS, _GREYS, 255 - _GREYS) for level in levels
        ],
        Operation.SOLARIZE_ADD: [
            np.where(_GREYS < 128, np.minimum(_GREYS + solarize_addition(level), 255), _GREYS)
            for level in levels
        ],
        Operation.FINE_BRIGHTNESS: [
            blend(np.zeros(1, np.int64), _GREYS, fine_brightness_factor(level))
            for level in range(NUM_FINE_LEVELS)
        ],
    }
    first = np.empty((len(Operation), NUM_FINE_LEVELS), np.int32)
    first[:] = 256 * len(blends)
    enhancers = (Operation.COLOR, Operation.CONTRAST, Operation.BRIGHTNESS, Operation.SHARPNESS)
    for operation in enhancers:
        first[operation, : len(blends)] = 256 * np.arange(len(blends))
    num_rows = 256 * len(blends)
    for operation, rows in single.items():
        last = len(rows) - 1
        first[operation] = num_rows + np.minimum(np.arange(NUM_FINE_LEVELS), last)
        num_rows += len(rows)
    table = np.concatenate([*blends, *(np.stack(rows) for rows in single.values())])
    return table.astype(np.uint8), first


@functools.cache
def autocontrast_shortfall() -> NDArray[np.uint8]:
    """Finds where Pillow's AutoContrast falls one grey level short of the exact quotient.

    Pillow computes ⌊255·(v − low) / (high − low)⌋ as ⌊v·s − low·s⌋ with s = 255 / (high − low) in
    float64. Where the quotient is whole, rounding can end just below it. No other precision finds
    the same places, so they are kept as bits.

    Returns:
      uint8 [65536, 32]: of row 256·low + high, bit v mod 8 of entry v div 8 is 1 if v falls short.
    """
    packed = np.zeros((256, 256, 32), np.uint8)
    for low in range(255):
        span = np.arange(1, 256 - low)[:, None]
        scale = 255.0 / span
        rounded = (_GREYS * scale + -low * scale).astype(np.int64)
        inside = (low <= _GREYS) & (low + span >= _GREYS)
        short = inside & (rounded < (_GREYS - low) * 255 // span)
        packed[low, low + 1 :] = np.packbits(short, axis=-1, bitorder="little")
    return packed.reshape(-1, 32)
