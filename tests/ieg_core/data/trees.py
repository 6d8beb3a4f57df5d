# SPDX-License-Identifier: Apache-2.0
"""Small trees of image files, as people have them."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pyarrow
from PIL import Image

NAMES = ("apple", "bee", "car")
COUNTS = {"train": 6, "test": 2}
"""Images of each class in each part."""


def picture(class_number: int, seed: int, size: tuple[int, int] = (12, 10)) -> Image.Image:
    """A noisy picture whose color and brighter side tell its class."""
    width, height = size
    rng = np.random.default_rng((class_number, seed))
    pixels = rng.integers(0, 80, (height, width, 3))
    pixels[..., class_number % 3] += 120
    columns = slice(width // 2) if class_number % 2 else slice(width // 2, width)
    pixels[:, columns] += 50
    return Image.fromarray(pixels.astype(np.uint8))


def write_tree(
    root: Path,
    counts: dict[str, int],
    names: tuple[str, ...] = NAMES,
    kind: str = "png",
    size: tuple[int, int] = (12, 10),
) -> Path:
    """Writes <root>/<part>/<class>/<number>.<kind>, so many of each class in each part."""
    for place, (part, count) in enumerate(counts.items()):
        for number, name in enumerate(names):
            folder = root / part / name
            folder.mkdir(parents=True, exist_ok=True)
            for index in range(count):
                seed = 10_000 * place + index
                picture(number, seed, size).save(folder / f"{index:04}.{kind}")
    return root


def bomb() -> bytes:
    """A PNG that says it has 30,000 × 30,000 pixels."""
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def not_utf8_column() -> pyarrow.StringArray:
    """Two texts, of which the first is no UTF-8."""
    offsets = pyarrow.array([0, 8, 9], pyarrow.int32()).buffers()[1]
    return pyarrow.StringArray.from_buffers(2, offsets, pyarrow.py_buffer(b"caf\xe9.pngx"))
