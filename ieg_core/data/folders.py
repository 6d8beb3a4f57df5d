# SPDX-License-Identifier: Apache-2.0
"""Folders that exist whole or not at all."""

import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path


def write_folder(folder: Path, files: Mapping[str, bytes | memoryview]) -> None:
    """Writes a folder under a temporary name beside it, flushes it to disk and renames it.

    Args:
      folder: Where it will be; if a folder with files is there already, that one stays.
      files: Contents by file name.

    Raises:
      OSError: It cannot be written; nothing is left behind.
    """
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    try:
        temporary.mkdir(parents=True)
        for name, content in files.items():
            with (temporary / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        try:
            temporary.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
        _flush_folder(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
