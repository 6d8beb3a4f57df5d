# SPDX-License-Identifier: Apache-2.0
"""From the bytes of an image file to the pixels that a network sees.

Files are told apart by their content, not their name: JPEG, PNG and WebP, of an animation the first
picture. EXIF's orientation is applied, palettes and CMYK become RGB, 16 bits a channel become 8,
and what is transparent becomes white.

Whatever its size, an image is cut to a box and brought to size x size pixels by Pillow's bilinear
filter, which averages over all pixels it skips:

* held in memory: the largest centred square; an image that is size x size stays as it is;
* large, for evaluation: the centred square of 7/8 of the shorter side (as 224 of 256 pixels);
* large, for training: a random box, see `crop_box`.
"""

import contextlib
import io
import math
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

# Photographs from the web are full of damaged metadata, and Pillow warns of each; not around each
# call, because in threads that would not hold.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

Pixels = NDArray[np.uint8]
Box = tuple[float, float, float, float]

EVALUATED_SHARE: Final = 224 / 256
_ORIENTATION: Final = 0x0112
_TRANSPOSED: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnreadableImageError(Exception):
    """A file holds no picture that can be decoded; the message says why."""


class Budget:
    """So many megapixels may be decoded at a time, in however many threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held = 0.0

    @contextlib.contextmanager
    def held(self, megapixels: float, limit: float) -> Iterator[None]:
        """Waits until there is room for a picture, and holds it; for one alone there always is."""
        with self._changed:
            self._changed.wait_for(lambda: not self._held or self._held + megapixels <= limit)
            self._held += megapixels
        try:
            yield
        finally:
            with self._changed:
                # Of differences of floats something might be left for ever.
                self._held = max(0.0, round(self._held - megapixels, 6))
                self._changed.notify_all()


_DECODING: Final = Budget()


def read_pixels(
    content: bytes,
    size: int,
    box: Callable[[int, int], Box],
    *,
    channels: int = 3,
    max_megapixels: float = 90,
) -> Pixels:
    """Decodes a file and brings a box of the picture to the network's size.

    Args:
      content: The file's bytes.
      size: Side of the result in pixels.
      box: (width, height) of the upright picture -> (left, top, right, bottom) inside it.
      channels: 3 for colour, 1 for grey.
      max_megapixels: Of a picture of more, nothing is decoded; nor are pictures of more than that
        together, however many threads call: a picture takes up to 16 bytes a pixel.

    Returns:
      uint8 [size, size, channels].

    Raises:
      UnreadableImageError: No JPEG, PNG or WebP, truncated, damaged, or too large.
    """
    try:
        image = _open(content)
        megapixels = image.width * image.height / 1e6
        if megapixels > max_megapixels:
            raise UnreadableImageError(
                f"{image.width}×{image.height} pixels are more than {max_megapixels:g} megapixels"
            )
        return _cut(image, size, box, channels, max_megapixels)
    except UnreadableImageError:
        raise
    except MemoryError:
        raise
    except Exception as error:
        # Which exceptions a damaged file can cause, no decoder's documentation says.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableImageError(reason) from error


def central_square(width: int, height: int) -> Box:
    """Returns the largest centred square, of whole pixels."""
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def evaluated_square(width: int, height: int) -> Box:
    """Returns the centred square of 7/8 of the shorter side."""
    side = EVALUATED_SHARE * min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def crop_box(draw: NDArray[np.float64], width: int, height: int, min_area: float) -> Box:
    """Turns four uniform draws into a random box.

    area = W·H·(min_area + (1 − min_area)·u₀),   ratio = (3/4)^(1 − 2·u₁),
    w = min(W, √(area·ratio)),   h = min(H, √(area/ratio)),   left = u₂·(W − w),  top = u₃·(H − h)

    Args:
      draw: u, float64 [4] in [0, 1).
      width: W.
      height: H.
      min_area: Smallest share of the picture.

    Returns:
      (left, top, right, bottom).

    Reference: Szegedy et al., CVPR 2015 (arXiv 1409.4842), section 6. Differs: a box that does not
    fit is clipped, where others draw again; so a box takes four draws, always.
    """
    area = width * height * (min_area + (1 - min_area) * draw[0])
    ratio = (3 / 4) ** (1 - 2 * draw[1])
    w, h = min(width, math.sqrt(area * ratio)), min(height, math.sqrt(area / ratio))
    left, top = draw[2] * (width - w), draw[3] * (height - h)
    return float(left), float(top), float(left + w), float(top + h)


def reader_of(content: bytes) -> Callable[[io.BytesIO], Image.Image] | None:
    """Returns what reads a file that begins so; None for what is no JPEG, PNG or WebP."""
    if content.startswith(b"\xff\xd8\xff"):
        return JpegImagePlugin.JpegImageFile
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImagePlugin.PngImageFile
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return WebPImagePlugin.WebPImageFile
    return None


def _open(content: bytes) -> Image.Image:
    """Reads a file's header; not `Image.open`, whose limit on size is a global with a warning."""
    if not content:
        raise UnreadableImageError("it is empty")
    reader = reader_of(content)
    if reader is None:
        raise UnreadableImageError("it is no JPEG, PNG or WebP")
    return reader(io.BytesIO(content))


def _cut(
    image: Image.Image,
    size: int,
    box: Callable[[int, int], Box],
    channels: int,
    max_megapixels: float,
) -> Pixels:
    orientation = _orientation(image)
    width, height = image.size
    if orientation >= 5:
        width, height = height, width
    left, top, right, bottom = box(width, height)
    decoded = width * height
    # A JPEG can be decoded at a half, a quarter or an eighth of its size, in as much less time.
    scale = size / min(right - left, bottom - top)
    if scale < 1:
        image.draft(None, (math.ceil(image.width * scale), math.ceil(image.height * scale)))
        # Of a progressive one the decoder holds all of it nevertheless.
        if not image.info.get("progressive"):
            decoded = image.width * image.height
    with _DECODING.held(decoded / 1e6, max_megapixels):
        image.load()
        image = _plain(image, channels)
        if orientation in _TRANSPOSED:
            image = image.transpose(_TRANSPOSED[orientation])
        across, down = image.width / width, image.height / height
        cut = (left * across, top * down, right * across, bottom * down)
        if cut != (0, 0, size, size) or image.size != (size, size):
            image = image.resize((size, size), Image.Resampling.BILINEAR, box=cut)
        return np.asarray(image, np.uint8).reshape(size, size, channels)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged metadata do not make a picture unreadable
        return 1


def _plain(image: Image.Image, channels: int) -> Image.Image:
    """Converts any mode to RGB or L."""
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    mode = "RGB" if channels == 3 else "L"
    return image if image.mode == mode else image.convert(mode)
