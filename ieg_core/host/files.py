# SPDX-License-Identifier: Apache-2.0
"""Files that are written whole or not at all, and JSON that is read strictly."""

import contextlib
import errno
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ieg_core.errors import UserError


@contextlib.contextmanager
def writable(path: Path) -> Iterator[None]:
    """Turns the operating system's refusals to write under `path` into one clear line.

    Raises:
      UserError: No permission, a read-only or full disk, or a file where a folder is needed.
    """
    reasons = {
        errno.ENOSPC: "the disk is full",
        errno.EDQUOT: "the disk quota is used up",
        errno.EACCES: "no permission to write there",
        errno.EPERM: "no permission to write there",
        errno.EROFS: "the file system is read-only",
        errno.ENOTDIR: "a part of the path is a file",
        errno.EISDIR: "a folder of that name is in the way",
        errno.EEXIST: "a file of that name is in the way",
        errno.ENOENT: "no folder can be made there",
    }
    try:
        yield
    except OSError as error:
        if error.errno in reasons:
            raise UserError(
                f"cannot write results under {path}: {reasons[error.errno]}; "
                "make room or choose another folder (OUT=…)"
            ) from error
        raise


def write_bytes_atomic(path: Path, data: bytes) -> None:
    """Writes a file so that a reader sees the old content or the new, also after a power cut."""
    with writable(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise


def write_json_atomic(path: Path, value: Any) -> None:
    """Writes JSON atomically; NaN and infinity are refused, they are no JSON."""
    text = json.dumps(value, indent=1, allow_nan=False) + "\n"
    write_bytes_atomic(path, text.encode())


def read_json(path: Path) -> Any:
    """Reads JSON; returns None where there is no such file.

    Raises:
      UserError: The file is not JSON.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged ({error}): delete it and run again") from error
