# SPDX-License-Identifier: Apache-2.0
"""Large arrays in files: memory holds only the rows in use, however many there are."""

import mmap
import os
import tempfile
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ieg_core.errors import UserError

MOST_BYTES: Final = 1 << 29
"""Of an array in memory."""


def allocate(rows: int, columns: int) -> NDArray[np.float32]:
    """Returns an array with arbitrary values, in memory or, if it is large, in a temporary file.

    Args:
      rows: n.
      columns: d.

    Returns:
      float32 [n, d]. Its file has no name, and disappears with the array.

    Raises:
      UserError: When the disk has no room for it.
    """
    size = rows * columns * np.dtype(np.float32).itemsize
    if size <= MOST_BYTES:
        return np.empty((rows, columns), np.float32)
    with tempfile.TemporaryFile() as file:
        try:
            # Without its blocks, a file on a full disk would end the process at a write.
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            raise UserError(
                f"cannot keep {size / 1e9:.1f} GB in {tempfile.gettempdir()} ({error.strerror}): "
                "expected room for the reduced features; set TMPDIR to a folder on another disk"
            ) from error
        return np.memmap(file, np.float32, "r+", shape=(rows, columns))


def release(array: np.ndarray) -> None:
    """Returns the memory of an array, or view of one, that is a file.

    Its rows are read again when they are used.
    """
    while isinstance(array.base, np.ndarray):
        array = array.base
    mapping = array.base
    is_private = isinstance(array, np.memmap) and array.mode == "c"
    if isinstance(mapping, mmap.mmap) and not is_private:
        mapping.madvise(mmap.MADV_DONTNEED)
