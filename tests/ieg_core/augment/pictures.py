# SPDX-License-Identifier: Apache-2.0
"""Pictures to compare operations on: photographs, scanned digits, every gray level."""

import functools

import numpy as np
from sklearn.datasets import load_digits, load_sample_images


@functools.cache
def photographs() -> tuple[np.ndarray, ...]:
    """Returns scikit-learn's two sample photographs, uint8 [427, 640, 3]."""
    return tuple(load_sample_images().images)


@functools.cache
def color(side: int = 32) -> np.ndarray:
    """Returns patches of photographs and synthetic pictures, uint8 [N, side, side, 3]."""
    patches = [
        photo[y : y + side, x : x + side]
        for photo in photographs()
        for y, x in ((0, 0), (90, 210), (150, 400), (300, 33), (427 - side, 640 - side))
    ]
    return np.stack(patches + list(_synthetic(side, side, 3)))


@functools.cache
def gray() -> np.ndarray:
    """Returns scanned digits and synthetic pictures of 8×8 pixels, uint8 [N, 8, 8, 1]."""
    digits = np.round(load_digits().images[:20] * 255 / 16).astype(np.uint8)[..., None]
    return np.concatenate([digits, _synthetic(8, 8, 1)])


def _synthetic(height: int, width: int, channels: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    size = height * width * channels
    shape = (height, width, channels)
    noise = rng.integers(0, 256, size)
    flat = [
        np.arange(size) % 256,
        np.arange(size)[::-1] // 3 % 256,
        noise,
        40 + noise // 5,
        100 + noise // 64,
        np.where(noise < 3, 255, 7),
        np.full(size, 77),
        np.zeros(size),
        np.full(size, 255),
    ]
    return np.stack([values.reshape(shape) for values in flat]).astype(np.uint8)
