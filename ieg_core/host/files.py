# SPDX-License-Identifier: Apache-2.0
"""Atomic writes of files, and reading and writing of JSON."""

import contextlib
import errno
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ieg_core.errors import UserError


def expand(path: str | Path) -> Path:
    """Returns a path that a user passed, with `~` as the home directory."""
    return Path(os.path.expanduser(path))


def is_inside(path: Path, folder: Path) -> bool:
    """Returns whether a path is a folder or in it, links followed; it need not exist."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


@contextlib.contextmanager
def writable(path: Path) -> Iterator[None]:
    """Converts operating system errors on writing under `path` to one-line errors.

    Args:
      path: The folder that is written to.

    Raises:
      UserError: When the operating system refuses, for example because permission is missing, the
        disk is full or read-only, or a file is in the place of a folder.
    """
    reasons = {
        errno.ENOSPC: "the disk is full",
        errno.EDQUOT: "the disk quota is exceeded",
        errno.EACCES: "no permission to write there",
        errno.EPERM: "no permission to write there",
        errno.EROFS: "the file system is read-only",
        errno.ENOTDIR: "a part of the path is a file",
        errno.EISDIR: "a folder of that name exists",
        errno.EEXIST: "a file of that name exists",
        errno.ENOENT: "the folder cannot be created",
    }
    try:
        yield
    except OSError as error:
        if error.errno is None:  # not from the operating system
            raise
        reason = reasons.get(error.errno, error.strerror or type(error).__name__)
        raise UserError(
            f"cannot write results under {path} ({reason}): expected a writable folder with free "
            "space; free some space or choose another folder (OUT=…)"
        ) from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Replaces a file atomically with one that the body of the `with` block writes.

    Args:
      path: The file; its folder is created if missing.

    Yields:
      The temporary file to write, with the extension of `path`; removed if the body fails.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(path.suffix, f".{path.name}.", path.parent)
    os.close(handle)
    try:
        yield Path(name)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


def write_bytes_atomic(path: Path, data: bytes) -> None:
    """Writes a file atomically: readers see the old content or the new, even after a power loss.

    Args:
      path: The file; its folder is created if missing.
      data: The content.

    Raises:
      UserError: When the folder is not writable.
    """
    with writable(path.parent), replacing(path) as temporary, temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_json_atomic(path: Path, value: Any) -> None:
    """Writes JSON atomically.

    Args:
      path: The file; its folder is created if missing.
      value: A value that JSON can represent.

    Raises:
      ValueError: When the value contains NaN or infinity, which are not valid JSON.
      UserError: When the folder is not writable.
    """
    text = json.dumps(value, indent=1, allow_nan=False) + "\n"
    write_bytes_atomic(path, text.encode())


def read_json(path: Path) -> Any:
    """Reads a JSON file; returns None if it does not exist.

    Raises:
      UserError: When the file is not valid JSON, or cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(
            f"cannot read {path} ({error.strerror}): expected a JSON file; repair it or delete it"
        ) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}): delete it and run again") from error
