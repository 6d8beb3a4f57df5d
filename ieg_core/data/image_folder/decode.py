# SPDX-License-Identifier: Apache-2.0
"""Decodes image files to the pixels that a network receives.

Files are recognized by content, not by name: JPEG, PNG and WebP; of an animation, the first frame.
The EXIF orientation is applied, palettes and CMYK become RGB, and transparent pixels become white.
16 bits per channel become 8 by dropping the lower 8. An image of 16 bits that uses less than a
quarter of the range, such as one of 12 or 14 bits, would become dark, with few grays, and is
refused.

An image of any size is cropped to a box and resized to size x size pixels by Pillow's bilinear
filter, which averages over all source pixels:

* held in memory: the largest centered square; an image of size x size is unchanged;
* large, for evaluation: the centered square of 7/8 of the shorter side (as 224 of 256 pixels);
* large, for training: a random box, see `crop_box`.
"""

import contextlib
import io
import math
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

# Many photographs from the web have damaged metadata, and Pillow warns about each. The filter is
# global, because a filter around each call is not thread-safe.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

Pixels = NDArray[np.uint8]
Box = tuple[float, float, float, float]

MOST_MEGAPIXELS: Final = 90.0
"""Of an image, the default of the setting images.max_megapixels."""
EVALUATED_SHARE: Final = 224 / 256
_PNG_BITS: Final = 24
"""Place of the bits per channel in a PNG."""
_ORIENTATION: Final = 0x0112
_SCAN: Final = b"\xff\xda"
_MARKER: Final = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
"""A marker of a JPEG that can end a scan."""
_MOST_SCANS: Final = 100
"""Encoders write 1 to 12. Each of an empty one's 100 bytes goes over the whole image."""
_LONGEST_SIDE: Final = 65_535
"""JPEG's own limit. A PNG of 90,000,000 × 1 pixels takes gigabytes to resize."""
_ORIENTED: Final = (b"Raw profile type exif", b"XML:com.adobe.xmp")
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
    """The file cannot be decoded as an image; the message says why."""


class Budget:
    """Limits the megapixels that are decoded at the same time, over all threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held = 0.0

    @contextlib.contextmanager
    def held(self, megapixels: float, limit: float) -> Iterator[None]:
        """Waits until an image fits into the limit, and reserves it; an image alone always fits.

        Args:
          megapixels: Size of the image.
          limit: Megapixels that may be reserved at the same time.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._held or self._held + megapixels <= limit)
            self._held += megapixels
        try:
            yield
        finally:
            with self._changed:
                # Without rounding, differences of floats could leave a remainder forever.
                self._held = max(0.0, round(self._held - megapixels, 6))
                self._changed.notify_all()


_DECODING: Final = Budget()


def read_pixels(
    content: bytes,
    size: int,
    box: Callable[[int, int], Box],
    *,
    channels: int = 3,
    max_megapixels: float = MOST_MEGAPIXELS,
    resampling: Image.Resampling = Image.Resampling.BILINEAR,
) -> Pixels:
    """Decodes a file, crops it to a box and resizes the box to the network's size.

    Args:
      content: The file's bytes.
      size: Side of the result in pixels.
      box: (width, height) of the upright image -> (left, top, right, bottom) inside it, in pixels.
      channels: 3 for color, 1 for gray.
      max_megapixels: Larger images are refused. All threads together decode at most this much at a
        time, since an image takes up to 16 bytes per pixel.
      resampling: Pillow's filter.

    Returns:
      uint8 [size, size, channels].

    Raises:
      UnreadableImageError: When the file is not a JPEG, PNG or WebP, or is truncated, damaged or
        too large.
    """
    try:
        image = _open(content)
        _refuse_large(image, max_megapixels)
        return _cut(image, content, size, box, channels, max_megapixels, resampling)
    except (UnreadableImageError, MemoryError):
        raise
    except Exception as error:
        # No decoder documents which exceptions a damaged file can cause.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableImageError(reason) from error


def read_original(content: bytes) -> Pixels:
    """Decodes a file at its own size, upright.

    Args:
      content: The file's bytes.

    Returns:
      uint8 [height, width, 3], or 1 channel for an image in shades of gray.

    Raises:
      UnreadableImageError: As `read_pixels`.
    """
    try:
        image = _open(content)
        _refuse_large(image, MOST_MEGAPIXELS)
        orientation = _orientation(image)
        with _DECODING.held(image.width * image.height / 1e6, MOST_MEGAPIXELS):
            image.load()
            _refuse_dark(image, content)
            is_gray = image.mode in ("1", "L") or image.mode.startswith("I")
            image = plain(image, 1 if is_gray else 3)
            if orientation in _TRANSPOSED:
                image = image.transpose(_TRANSPOSED[orientation])
            return np.asarray(image, np.uint8).reshape(image.height, image.width, -1)
    except (UnreadableImageError, MemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableImageError(reason) from error


def _refuse_large(image: Image.Image, max_megapixels: float) -> None:
    if image.width * image.height / 1e6 > max_megapixels:
        raise UnreadableImageError(
            f"{image.width}×{image.height} pixels exceed {max_megapixels:g} megapixels"
        )
    if max(image.size) > _LONGEST_SIDE:
        raise UnreadableImageError(
            f"{image.width}×{image.height} pixels exceed {_LONGEST_SIDE:,} on a side"
        )


def central_square(width: int, height: int) -> Box:
    """Returns the largest centered square in whole pixels, as (left, top, right, bottom)."""
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def evaluated_square(width: int, height: int) -> Box:
    """Returns the centered square of 7/8 of the shorter side, as (left, top, right, bottom)."""
    side = EVALUATED_SHARE * min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def crop_box(draw: NDArray[np.float64], width: int, height: int, min_area: float) -> Box:
    """Converts four uniform draws to a random box.

    area = W·H·(min_area + (1 − min_area)·u₀),   ratio = (3/4)^(1 − 2·u₁),
    w = min(W, √(area·ratio)),   h = min(H, √(area/ratio)),   left = u₂·(W − w),  top = u₃·(H − h)

    Args:
      draw: u, float64 [4] in [0, 1).
      width: W, in pixels.
      height: H, in pixels.
      min_area: Smallest area of the box, as a share of the image's, in (0, 1].

    Returns:
      (left, top, right, bottom), in pixels.

    Reference: Szegedy et al., CVPR 2015 (arXiv 1409.4842), section 6. Difference: a box that does
    not fit is clipped instead of drawn again, so that each box takes exactly four draws.
    """
    area = width * height * (min_area + (1 - min_area) * draw[0])
    ratio = (3 / 4) ** (1 - 2 * draw[1])
    w, h = min(width, math.sqrt(area * ratio)), min(height, math.sqrt(area / ratio))
    left, top = draw[2] * (width - w), draw[3] * (height - h)
    return float(left), float(top), float(left + w), float(top + h)


def reader_of(content: bytes) -> Callable[[io.BytesIO], Image.Image] | None:
    """Returns Pillow's reader for a file; None unless it starts like a JPEG, PNG or WebP.

    Args:
      content: The file's bytes, at least the first 12.
    """
    if content.startswith(b"\xff\xd8\xff"):
        return JpegImagePlugin.JpegImageFile
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImagePlugin.PngImageFile
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return WebPImagePlugin.WebPImageFile
    return None


def _open(content: bytes) -> Image.Image:
    """Reads a file's header; unlike `Image.open`, without the global size limit and its warning."""
    if not content:
        raise UnreadableImageError("it is empty")
    reader = reader_of(content)
    if reader is None:
        raise UnreadableImageError("it is not a JPEG, PNG or WebP file")
    if reader is PngImagePlugin.PngImageFile:
        content = _without_large_metadata(content)
    # Metadata, and what phones append, may hold the two bytes by chance.
    if reader is JpegImagePlugin.JpegImageFile and content.count(_SCAN) > _MOST_SCANS:
        _refuse_scans(content)
    return reader(io.BytesIO(content))


def _refuse_scans(content: bytes) -> None:
    scans, place = 0, 2
    while (marker := _MARKER.search(content, place)) and marker[1] != b"\xd9":
        scans += marker[0] == _SCAN
        length = content[marker.end() : marker.end() + 2]
        place = marker.end() + (0 if marker[1] in b"\x01\xd8" else int.from_bytes(length, "big"))
    if scans > _MOST_SCANS:
        raise UnreadableImageError(f"it has {scans:,} scans, at most {_MOST_SCANS} are read")


def _without_large_metadata(content: bytes) -> bytes:
    """Removes from a PNG the metadata that Pillow refuses to unpack if it is more than 1 MB.

    These are a color profile, which decoding ignores, and compressed text, unless it may hold the
    orientation.
    """
    kept, start = [content[:8]], 8
    while start + 8 <= len(content):
        length, kind = int.from_bytes(content[start : start + 4], "big"), content[start + 4 :][:4]
        chunk = content[start : start + 12 + length]
        start += 12 + length
        keyword, _, rest = chunk[8:].partition(b"\0")
        is_packed = kind == b"zTXt" or (kind == b"iTXt" and rest[:1] == b"\1")
        if kind != b"iCCP" and not (is_packed and keyword not in _ORIENTED):
            kept.append(chunk)
    return b"".join(kept) if sum(map(len, kept)) < len(content) else content


def _cut(
    image: Image.Image,
    content: bytes,
    size: int,
    box: Callable[[int, int], Box],
    channels: int,
    max_megapixels: float,
    resampling: Image.Resampling,
) -> Pixels:
    orientation = _orientation(image)
    width, height = image.size
    if orientation >= 5:
        width, height = height, width
    left, top, right, bottom = box(width, height)
    decoded = width * height
    # A JPEG can be decoded at 1/2, 1/4 or 1/8 of its size, which takes correspondingly less time.
    scale = size / min(right - left, bottom - top)
    if scale < 1:
        image.draft(None, (math.ceil(image.width * scale), math.ceil(image.height * scale)))
        # For a progressive JPEG the decoder still holds the full size in memory.
        if not image.info.get("progressive"):
            decoded = image.width * image.height
    with _DECODING.held(decoded / 1e6, max_megapixels):
        image.load()
        _refuse_dark(image, content)
        image = plain(image, channels)
        if orientation in _TRANSPOSED:
            image = image.transpose(_TRANSPOSED[orientation])
        across, down = image.width / width, image.height / height
        cut = (left * across, top * down, right * across, bottom * down)
        if cut != (0, 0, size, size) or image.size != (size, size):
            image = image.resize((size, size), resampling, box=cut)
        return np.asarray(image, np.uint8).reshape(size, size, channels)


def _refuse_dark(image: Image.Image, content: bytes) -> None:
    """Refuses a PNG of 16 bits per channel that leaves the upper 2 of them unused."""
    # Black on a transparent ground is common, and becomes black on white.
    if image.format != "PNG" or content[_PNG_BITS] != 16 or image.has_transparency_data:
        return
    brightest = int(np.max(image.getextrema())) >> (8 if image.mode.startswith("I") else 0)
    if brightest < 256 // 4:
        raise UnreadableImageError(
            f"its 16-bit values are all below {256 * (brightest + 1):,}, which is dark: "
            "save it with 8 bits, or scale its values to 0 … 65,535"
        )


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged metadata do not make an image unreadable
        return 1


def plain(image: Image.Image, channels: int) -> Image.Image:
    """Converts any mode to RGB or, for one channel, to L; transparency is shown on white."""
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    mode = "RGB" if channels == 3 else "L"
    return image if image.mode == mode else image.convert(mode)
