# SPDX-License-Identifier: Apache-2.0
"""The augmentation operations: names, meaning of the levels, affine matrices.

Levels range from 0 to `MAX_LEVEL`; the magnitudes are those of AutoAugment's CIFAR experiments
(arXiv 1805.09501): shear 0.3, translation 10 of 32 pixels, rotation 30°, solarize 256, posterize to
4 − ⌊0.4·level⌋ bits, enhancers 0.1 to 1.9, Cutout 20 of 32 pixels. SOLARIZE_RELEASED and
POSTERIZE_RELEASED have the magnitudes of the code that the authors of IEG and FSR released for
large images (from TensorFlow's models), in which a higher level of either changes less.
"""

import enum
import functools
import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

MAX_LEVEL = 10
GRAY = 128
NUM_FINE_LEVELS = 41
IDENTITY_MATRIX = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
_FIXED_POINT = 1 << 16


class Operation(enum.IntEnum):
    """An operation on an image; draws refer to it by number.

    FINE_BRIGHTNESS is BRIGHTNESS with the factor `fine_brightness_factor`.
    """

    IDENTITY = 0
    AUTO_CONTRAST = 1
    EQUALIZE = 2
    INVERT = 3
    POSTERIZE = 4
    SOLARIZE = 5
    SOLARIZE_ADD = 6
    COLOR = 7
    CONTRAST = 8
    BRIGHTNESS = 9
    SHARPNESS = 10
    SHEAR_X = 11
    SHEAR_Y = 12
    TRANSLATE_X = 13
    TRANSLATE_Y = 14
    ROTATE = 15
    CUTOUT = 16
    FINE_BRIGHTNESS = 17
    SOLARIZE_RELEASED = 18
    POSTERIZE_RELEASED = 19


def posterize_bits(level: int) -> int:
    """Returns how many bits POSTERIZE keeps: 4 − ⌊0.4·level⌋."""
    return 4 - 4 * level // MAX_LEVEL


def solarize_threshold(level: int) -> int:
    """Returns the gray level at and above which SOLARIZE inverts: 256 − ⌊25.6·level⌋."""
    return 256 - 256 * level // MAX_LEVEL


def released_posterize_bits(level: int) -> int:
    """Returns how many bits POSTERIZE_RELEASED keeps: ⌊0.4·level⌋; with 0, the image is black."""
    return 4 * level // MAX_LEVEL


def released_solarize_threshold(level: int) -> int:
    """Returns the gray level at and above which SOLARIZE_RELEASED inverts: ⌊25.6·level⌋."""
    return 256 * level // MAX_LEVEL


def solarize_addition(level: int) -> int:
    """Returns the amount that SOLARIZE_ADD adds to gray levels below 128: 11·level."""
    return 110 * level // MAX_LEVEL


def enhancement_factor(level: int) -> float:
    """Returns the factor of COLOR, CONTRAST, BRIGHTNESS and SHARPNESS: 0.1 + 0.18·level."""
    return level * 1.8 / MAX_LEVEL + 0.1


def fine_brightness_factor(level: int) -> float:
    """Returns the factor of FINE_BRIGHTNESS, 0.6 + 0.02·level for levels 0 to 40."""
    return 0.6 + 0.8 * level / (NUM_FINE_LEVELS - 1)


def shear(level: int) -> float:
    """Returns the slope of SHEAR_X and SHEAR_Y, in pixels per pixel: 0.03·level."""
    return level * 0.3 / MAX_LEVEL


def translation(level: int, side: int, largest_shift: float = 10 / 32) -> int:
    """Returns the shift of TRANSLATE_X or TRANSLATE_Y, in whole pixels.

    Args:
      level: 0 to MAX_LEVEL.
      side: Width or height of the image, in pixels.
      largest_shift: The shift at MAX_LEVEL, as a fraction of the side.
    """
    return round(level / MAX_LEVEL * largest_shift * side)


def rotation(level: int) -> float:
    """Returns the angle of ROTATE in degrees: 3·level."""
    return level * 30.0 / MAX_LEVEL


def cutout_side(level: int, side: int) -> int:
    """Returns the side of the square that CUTOUT blanks, in pixels: ⌊side·level/16⌋."""
    return 20 * level * side // (32 * MAX_LEVEL)


def rotation_matrix(degrees: float, height: int, width: int) -> tuple[float, ...]:
    """Returns the affine matrix by which Pillow rotates an image counter-clockwise.

    Args:
      degrees: The angle.
      height: H, in pixels.
      width: W, in pixels.

    Returns:
      (a, b, c, d, e, f): pixel (x, y) of the result is pixel (a·x + b·y + c, d·x + e·y + f) of the
      image, both measured from the corner. Sines are rounded to 15 digits, as in Pillow.
    """
    angle = -math.radians(degrees % 360.0)
    cosine, sine = round(math.cos(angle), 15), round(math.sin(angle), 15)
    x, y = width / 2, height / 2
    return (
        cosine,
        sine,
        cosine * -x + sine * -y + x,
        -sine,
        cosine,
        -sine * -x + cosine * -y + y,
    )


def fixed_point(matrices: ArrayLike) -> NDArray[np.int32]:
    """Converts affine matrices to the 16.16 fixed-point form in which Pillow picks nearest pixels.

    Pixel (x, y) of the result is pixel ((A·x + B·y + C) >> 16, (D·x + E·y + F) >> 16) of the image.
    This matches Pillow for images with sides below 32,768 pixels: pixel centers are half a pixel
    from the corner, and coefficients are rounded half up.

    Args:
      matrices: (a, b, c, d, e, f) from result to image, measured from the corner, float64 [..., 6].

    Returns:
      (A, B, C, D, E, F), int32 [..., 6].
    """
    a, b, c, d, e, f = np.moveaxis(np.asarray(matrices, np.float64), -1, 0)
    centered = np.stack([a, b, c + a * 0.5 + b * 0.5, d, e, f + d * 0.5 + e * 0.5], axis=-1)
    return np.floor(centered * _FIXED_POINT + 0.5).astype(np.int32)


@functools.cache
def affine_maps(height: int, width: int, largest_shift: float = 10 / 32) -> NDArray[np.int32]:
    """Tabulates the affine maps of the geometric operations.

    Args:
      height: H, in pixels.
      width: W, in pixels.
      largest_shift: The translation at MAX_LEVEL, as a fraction of the side.

    Returns:
      The `fixed_point` map of each operation, level and direction (0 forward, 1 reverse), int32
      [operations, MAX_LEVEL + 1, 2, 6]; all other operations have the identity map.
    """
    table = np.empty((len(Operation), MAX_LEVEL + 1, 2, 6))
    table[:] = IDENTITY_MATRIX
    for level in range(MAX_LEVEL + 1):
        for direction, sign in enumerate((1, -1)):
            slope = sign * shear(level)
            across = sign * translation(level, width, largest_shift)
            down = sign * translation(level, height, largest_shift)
            for operation, matrix in (
                (Operation.SHEAR_X, (1.0, slope, 0.0, 0.0, 1.0, 0.0)),
                (Operation.SHEAR_Y, (1.0, 0.0, 0.0, slope, 1.0, 0.0)),
                (Operation.TRANSLATE_X, (1.0, 0.0, across, 0.0, 1.0, 0.0)),
                (Operation.TRANSLATE_Y, (1.0, 0.0, 0.0, 0.0, 1.0, down)),
                (Operation.ROTATE, rotation_matrix(sign * rotation(level), height, width)),
            ):
                table[operation, level, direction] = matrix
    maps = fixed_point(table)
    maps.flags.writeable = False
    return maps
