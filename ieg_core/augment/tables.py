# SPDX-License-Identifier: Apache-2.0
"""Look-up tables of the pointwise operations, computed once on the host as Pillow computes them.

A row of the table maps a pixel's 256 gray levels. All operations except AutoContrast and Equalize
have their rows here, so both backends, with or without fused arithmetic, match Pillow bit for bit.
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
    released_posterize_bits,
    released_solarize_threshold,
    solarize_addition,
    solarize_threshold,
)

_GRAYS = np.arange(256)


def blend(anchor: NDArray[np.int64], image: NDArray[np.int64], factor: float) -> NDArray[np.uint8]:
    """Blends gray levels in float32, truncated toward zero: anchor + factor·(image − anchor).

    Args:
      anchor: The result for factor 0, int64 in 0 … 255.
      image: The result for factor 1, int64 in 0 … 255; its shape broadcasts with `anchor`'s.
      factor: The weight of `image`; above 1 it extrapolates away from the anchor.

    Returns:
      uint8 of the broadcast shape, clipped to 0 … 255.
    """
    mixed = anchor.astype(np.float32) + np.float32(factor) * (image - anchor).astype(np.float32)
    return np.clip(mixed, 0, 255).astype(np.uint8)


@functools.cache
def pointwise() -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Builds the table of all operations and levels.

    Returns:
      The rows, uint8 [R, 256], and the first row of each operation and level, int32
      [operations, levels]. Brightness, Color, Contrast and Sharpness have 256 rows per level, one
      for each gray level of their anchor; geometric operations have the identity row.
    """
    levels = range(MAX_LEVEL + 1)
    blends = [blend(_GRAYS[:, None], _GRAYS, enhancement_factor(level)) for level in levels]
    single = {
        Operation.IDENTITY: [_GRAYS],
        Operation.INVERT: [255 - _GRAYS],
        Operation.POSTERIZE: [_posterize(posterize_bits(level)) for level in levels],
        Operation.POSTERIZE_RELEASED: [
            _posterize(released_posterize_bits(level)) for level in levels
        ],
        Operation.SOLARIZE: [_solarize(solarize_threshold(level)) for level in levels],
        Operation.SOLARIZE_RELEASED: [
            _solarize(released_solarize_threshold(level)) for level in levels
        ],
        Operation.SOLARIZE_ADD: [
            np.where(_GRAYS < 128, np.minimum(_GRAYS + solarize_addition(level), 255), _GRAYS)
            for level in levels
        ],
        Operation.FINE_BRIGHTNESS: [
            blend(np.zeros(1, np.int64), _GRAYS, fine_brightness_factor(level))
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


def _posterize(bits: int) -> NDArray[np.int64]:
    return _GRAYS & -(1 << 8 - bits)


def _solarize(threshold: int) -> NDArray[np.int64]:
    return np.where(threshold > _GRAYS, _GRAYS, 255 - _GRAYS)


@functools.cache
def autocontrast_shortfall() -> NDArray[np.uint8]:
    """Finds where Pillow's AutoContrast falls one gray level short of the exact quotient.

    Pillow computes ⌊255·(v − low) / (high − low)⌋ as ⌊v·s − low·s⌋ with s = 255 / (high − low) in
    float64. Where the quotient is a whole number, rounding can end just below it. Other precisions
    round differently, so the affected values are stored as a bit mask.

    Returns:
      uint8 [65536, 32]: in row 256·low + high, bit v mod 8 of entry v div 8 is 1 if v falls short.
    """
    packed = np.zeros((256, 256, 32), np.uint8)
    for low in range(255):
        span = np.arange(1, 256 - low)[:, None]
        scale = 255.0 / span
        rounded = (_GRAYS * scale + -low * scale).astype(np.int64)
        inside = (low <= _GRAYS) & (low + span >= _GRAYS)
        short = inside & (rounded < (_GRAYS - low) * 255 // span)
        packed[low, low + 1 :] = np.packbits(short, axis=-1, bitorder="little")
    return packed.reshape(-1, 32)
