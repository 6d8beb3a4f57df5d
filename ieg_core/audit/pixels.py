# SPDX-License-Identifier: Apache-2.0
"""Converts images from Python objects to pixels, and pixels to a network's input."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ieg_core.data.image_folder.decode import (
    UnreadableImageError,
    central_square,
    plain,
    read_original,
)
from ieg_core.errors import UserError
from ieg_core.host.files import expand

HELD_SIDE: Final = 512


def to_pixels(value: Any, name: str = "an image") -> NDArray[np.uint8]:
    """Converts one image to pixels, upright and opaque.

    Args:
      value: A path, a file's bytes, a dictionary with either one under "path" or "bytes", a PIL
        image, or an array or tensor [H, W], [H, W, 1 or 3] or [1 or 3, H, W]: uint8, or floats in
        [0, 1].
      name: What messages call it.

    Returns:
      uint8 [H, W, 1] for a gray image, otherwise [H, W, 3].

    Raises:
      UserError: When the value is not an image.
    """
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str | Path):
        name = str(value)
        try:
            value = expand(value).read_bytes()
        except OSError as error:
            raise UserError(
                f"cannot read the image {name} ({error.strerror}): expected a readable file"
            ) from error
    if isinstance(value, bytes):
        try:
            return read_original(value)
        except UnreadableImageError as error:
            raise UserError(
                f"{name} cannot be decoded ({error}): repair it or leave it out"
            ) from error
    if hasattr(value, "convert") and hasattr(value, "mode"):
        return _from_pillow(value)
    return _from_array(value, name)


def square(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Crops the central square and resizes it to a network's input.

    Args:
      pixels: uint8 [H, W, 1 or 3].
      size: Side of the input in pixels.

    Returns:
      uint8 [size, size, 3].
    """
    image = Image.fromarray(pixels if pixels.shape[-1] == 3 else pixels[..., 0]).convert("RGB")
    box = central_square(*image.size)
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box=box))


def bounded(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Shrinks an image whose longer side exceeds `HELD_SIDE`: uint8 [H, W, 1 or 3], both ways."""
    if max(pixels.shape[:2]) <= HELD_SIDE:
        return pixels
    image = Image.fromarray(pixels if pixels.shape[-1] == 3 else pixels[..., 0])
    image.thumbnail((HELD_SIDE, HELD_SIDE), Image.Resampling.BICUBIC)
    return _from_pillow(image)


def _from_pillow(image: Any) -> NDArray[np.uint8]:
    image = ImageOps.exif_transpose(image)
    is_gray = image.mode.startswith(("1", "I")) or image.mode == "L"
    is_gray = is_gray and not image.has_transparency_data
    pixels = np.asarray(plain(image, 1 if is_gray else 3), np.uint8)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _from_array(value: Any, name: str) -> NDArray[np.uint8]:
    value = value.numpy() if hasattr(value, "numpy") else value
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.empty(0, object)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[-1] not in (1, 3):
        array = array.transpose(1, 2, 0)  # PyTorch is channels-first
    if array.ndim != 3 or array.shape[-1] not in (1, 3) or array.dtype.kind not in "uf":
        raise UserError(
            f"{name} is {type(value).__name__} of type {array.dtype} and shape {array.shape}: "
            "expected uint8, or floats in [0, 1], with 1 or 3 channels"
        )
    if array.dtype.kind == "f":
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise UserError(
                f"{name} has floats from {array.min():g} to {array.max():g}: expected [0, 1], or "
                "uint8 from 0 to 255; divide by 255, or remove a normalizing transform"
            )
        array = np.rint(array * 255)
    elif array.dtype != np.uint8:
        raise UserError(f"{name} is {array.dtype}: expected uint8, or floats in [0, 1]")
    return np.ascontiguousarray(array, np.uint8)
