# SPDX-License-Identifier: Apache-2.0
"""Image files as a feature network receives them: the largest centered square, bicubic.

Training a network on large files takes random crops and evaluates the middle of each image
(`ieg_core.data.image_folder.decode`); features are computed once, of as much of an image as
possible, and of the same pixels in an audit and in a training.
"""

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from ieg_core.data.base import ImageFiles
from ieg_core.data.image_folder.cache import in_parallel, read_file
from ieg_core.data.image_folder.decode import (
    MOST_MEGAPIXELS,
    UnreadableImageError,
    central_square,
    read_pixels,
)
from ieg_core.errors import UserError

Pixels = NDArray[np.uint8]
_SQUARE: Final = "central square, bicubic, 1"  # changing it invalidates the cache of features


def read_squares(
    files: ImageFiles, size: int, places: ArrayLike, max_megapixels: float = MOST_MEGAPIXELS
) -> Pixels:
    """Reads the squares of some files.

    Args:
      files: The files.
      size: Side of the squares in pixels.
      places: Indices of the files, int [m].
      max_megapixels: Larger images are not decoded.

    Returns:
      uint8 [m, size, size, 3].

    Raises:
      UserError: When a file can no longer be read, or has another content than its digest says:
        features of other pixels would be cached under that digest.
    """
    decode = partial(decode_square, size=size, max_megapixels=max_megapixels)

    def read(place: int) -> Pixels:
        return decoded(files.root / files.paths[place], decode, files.digests[place])

    return np.stack(list(in_parallel(read, np.asarray(places).tolist())))


def decode_square(content: bytes, size: int, max_megapixels: float = MOST_MEGAPIXELS) -> Pixels:
    """Decodes one file's square, uint8 [size, size, 3]; raises UnreadableImageError."""
    return read_pixels(
        content,
        size,
        central_square,
        max_megapixels=max_megapixels,
        resampling=Image.Resampling.BICUBIC,
    )


def square_keys(files: ImageFiles, size: int) -> tuple[str, ...]:
    """Returns the cache key of each file's square, SHA-256 in hexadecimal."""
    return tuple(
        hashlib.sha256(f"{_SQUARE} {size} {digest}".encode()).hexdigest()
        for digest in files.digests
    )


def decoded(file: Path, decode: Callable[[bytes], Pixels], sha256: str = "") -> Pixels:
    """Reads and decodes a file that could be decoded before.

    Args:
      file: The file.
      decode: Decodes its bytes.
      sha256: The digest that its content must have, hexadecimal; "" for any.

    Returns:
      What `decode` returns.

    Raises:
      UserError: When the file can no longer be read or decoded, or its content has changed.
    """
    try:
        content = read_file(file)
        if sha256 and hashlib.sha256(content).hexdigest() != sha256:
            raise UserError(
                f"{file} has changed: expected the files to stay unchanged while this runs; run it "
                "again"
            )
        return decode(content)
    except (OSError, UnreadableImageError) as error:
        raise UserError(
            f"{file} can no longer be read ({error}): expected the files to stay unchanged while "
            "this runs; run it again"
        ) from error
