# SPDX-License-Identifier: Apache-2.0
"""What each operation does according to Pillow, written without the package's own formulas."""

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from ieg_core.draws.operations import Operation
from ieg_core.experiment.config import STRONG_POLICIES

POLICIES = tuple(policy for policy in STRONG_POLICIES if policy != "weak")
"""The policies with operations."""

_ENHANCERS = {
    Operation.COLOR: ImageEnhance.Color,
    Operation.CONTRAST: ImageEnhance.Contrast,
    Operation.BRIGHTNESS: ImageEnhance.Brightness,
    Operation.SHARPNESS: ImageEnhance.Sharpness,
}


def operate(pixels: np.ndarray, operation: Operation, level: int, sign: int = 1) -> np.ndarray:
    """Applies an operation at a level to one image, uint8 [H, W, ch]."""
    image = _image(pixels)
    height, width = pixels.shape[:2]
    if operation in _ENHANCERS:
        done = _ENHANCERS[operation](image).enhance(0.1 + 1.8 * level / 10)
    elif operation == Operation.FINE_BRIGHTNESS:
        done = ImageEnhance.Brightness(image).enhance(0.6 + 0.8 * level / 40)
    elif operation == Operation.AUTO_CONTRAST:
        done = ImageOps.autocontrast(image)
    elif operation == Operation.EQUALIZE:
        done = ImageOps.equalize(image)
    elif operation == Operation.INVERT:
        done = ImageOps.invert(image)
    elif operation == Operation.POSTERIZE:
        done = ImageOps.posterize(image, 4 - int(0.4 * level))
    elif operation == Operation.POSTERIZE_RELEASED:
        bits = int(0.4 * level)  # Pillow refuses to keep none
        done = ImageOps.posterize(image, bits) if bits else Image.new(image.mode, image.size)
    elif operation == Operation.SOLARIZE:
        done = ImageOps.solarize(image, 256 - int(25.6 * level))
    elif operation == Operation.SOLARIZE_RELEASED:
        done = ImageOps.solarize(image, int(25.6 * level))
    elif operation == Operation.SOLARIZE_ADD:
        lighter = [min(255, v + 11 * level) if v < 128 else v for v in range(256)]
        done = image.point(lighter * pixels.shape[2])
    elif operation == Operation.SHEAR_X:
        done = move(image, (1, sign * 0.3 * level / 10, 0, 0, 1, 0))
    elif operation == Operation.SHEAR_Y:
        done = move(image, (1, 0, 0, sign * 0.3 * level / 10, 1, 0))
    elif operation == Operation.TRANSLATE_X:
        done = move(image, (1, 0, sign * round(level * width / 32), 0, 1, 0))
    elif operation == Operation.TRANSLATE_Y:
        done = move(image, (1, 0, 0, 0, 1, sign * round(level * height / 32)))
    elif operation == Operation.ROTATE:
        done = image.rotate(sign * 3 * level, fillcolor=_gray(image))
    else:
        done = image
    return np.asarray(done).reshape(pixels.shape)


def move(image: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    """Maps an image by an affine matrix from result to image, mid-gray outside."""
    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST, fillcolor=_gray(image)
    )


def move_pixels(pixels: np.ndarray, matrix: tuple[float, ...]) -> np.ndarray:
    """Does the same with pixels, uint8 [H, W, ch]."""
    return np.asarray(move(_image(pixels), matrix)).reshape(pixels.shape)


def _image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def _gray(image: Image.Image) -> int | tuple[int, ...]:
    return 128 if image.mode == "L" else (128, 128, 128)
