# SPDX-License-Identifier: Apache-2.0
"""Folders that exist whole or not at all."""

import contextlib
import fcntl
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

from ieg_core.host.liveness import is_recent
from ieg_core.host.processes import machine


def write_folder(folder: Path, files: Mapping[str, bytes | memoryview]) -> None:
    """Writes a folder under a temporary name beside it, flushes it to disk and renames it.

    Args:
      folder: Where it will be; if a folder with files is there already, that one stays.
      files: Contents by file name.

    Raises:
      OSError: It cannot be written; nothing is left behind.
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
    """Makes an empty folder beside one that is to be, and removes what is left of it at the end.

    What processes that were killed have left of the same is removed first. This one holds the
    kernel's lock on its folder; whether a process of another machine lives, whose locks need not
    be seen here, the folder's last change says.

    Args:
      folder: What it is to be renamed to.

    Raises:
      OSError: It cannot be made.
    """
    for path in folder.parent.glob(f".{folder.name}.*"):
        if _is_temporary(path, folder):
            with contextlib.suppress(OSError):  # another process was faster
                _remove_abandoned(path)
    while True:
        temporary = folder.with_name(f".{folder.name}.{_machine()}.{uuid.uuid4().hex}")
        temporary.mkdir(parents=True)
        handle = os.open(temporary, os.O_RDONLY)
        _lock(handle, wait=True)
        if os.path.exists(temporary):
            break
        os.close(handle)  # who looked for abandoned ones was faster than the lock
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        os.close(handle)


def rename_folder(temporary: Path, folder: Path) -> None:
    """Renames a filled folder; if a folder with files is there already, that one stays.

    Raises:
      OSError: It cannot be renamed.
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


def _remove_abandoned(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        is_here = path.name.split(".")[-2] == _machine()
        locked = _lock(handle, wait=False) if is_here else None
        if locked is None:
            changed = max(each.stat().st_mtime for each in (path, *path.iterdir()))
            locked = not is_recent(changed, time.time())
        if locked:
            shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(handle)


def _lock(handle: int, *, wait: bool) -> bool | None:
    """Returns whether the folder is locked now; None where the file system has no such locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
