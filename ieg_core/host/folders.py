# SPDX-License-Identifier: Apache-2.0
"""Atomic creation of folders."""

import contextlib
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

from ieg_core.host.liveness import is_recent
from ieg_core.host.locks import lock
from ieg_core.host.processes import machine


def write_folder(folder: Path, files: Mapping[str, bytes | memoryview]) -> None:
    """Writes a folder atomically: under a temporary name, flushed to disk, then renamed.

    Args:
      folder: The folder to create; an existing folder with files is left unchanged.
      files: Contents by file name.

    Raises:
      OSError: When the folder cannot be written; nothing is left behind.
    """
    with temporary_folder(folder) as temporary:
        for name, content in files.items():
            with (temporary / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        rename_folder(temporary, folder)
        _flush_folder(folder.parent)


@contextlib.contextmanager
def temporary_folder(folder: Path) -> Iterator[Path]:
    """Creates an empty folder next to `folder`, and removes it on exit unless renamed.

    Also removes temporary folders left by killed processes. The creator of a temporary folder
    holds a file lock on it. Locks of other machines may not be visible here, so for their folders
    the time of the last change decides, by the clock of the file system, which may not be this
    machine's: that of the folder created here.

    Args:
      folder: The final folder, to which the temporary one will be renamed.

    Yields:
      The temporary folder.

    Raises:
      OSError: When the folder cannot be created.
    """
    while True:
        temporary = folder.with_name(f".{folder.name}.{_machine()}.{uuid.uuid4().hex}")
        temporary.mkdir(parents=True)
        handle = os.open(temporary, os.O_RDONLY)
        lock(handle, wait=True)
        if os.path.exists(temporary):
            break
        os.close(handle)  # another process removed the folder before it was locked
    try:
        now = temporary.stat().st_mtime
        for path in folder.parent.glob(f".{folder.name}.*"):
            if path != temporary and _is_temporary(path, folder):
                with contextlib.suppress(OSError):  # another process removed it first
                    _remove_abandoned(path, now)
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        os.close(handle)


def rename_folder(temporary: Path, folder: Path) -> None:
    """Renames a complete folder; an existing folder with files is left unchanged.

    Args:
      temporary: The complete folder.
      folder: Its new name, on the same file system.

    Raises:
      OSError: When the folder cannot be renamed.
    """
    try:
        temporary.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise


def _machine() -> str:
    return hashlib.sha256(machine().encode()).hexdigest()[:8]


def _is_temporary(path: Path, folder: Path) -> bool:
    parts = path.name.removeprefix(f".{folder.name}.").split(".")
    return [len(part) for part in parts] == [8, 32] and path.is_dir()


def _remove_abandoned(path: Path, now: float) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        is_here = path.name.split(".")[-2] == _machine()
        locked = lock(handle) if is_here else None
        if locked is None:
            changed = max(entry.stat().st_mtime for entry in (path, *path.iterdir()))
            locked = not is_recent(changed, now)
        if locked:
            shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(handle)


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
