# SPDX-License-Identifier: Apache-2.0
"""A persistent cache of arrays that are slow to compute.

Arrays are stored in safetensors files under $XDG_CACHE_HOME/ieg (~/.cache/ieg), with a SHA-256 of
the content in each file's metadata. A damaged file counts as missing. If the folder is not
writable, nothing is cached, and this is not an error.
"""

import contextlib
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import safetensors
import safetensors.numpy
from safetensors import SafetensorError

from ieg_core.errors import UserError
from ieg_core.host.files import write_bytes_atomic

_DIGEST: Final = "sha256"


def cache_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Returns this package's folder in the user's cache directory.

    If there is no home directory, as for a container's user without a name, it is a path that
    nobody can write, so that nothing is cached.
    """
    root = environ.get("XDG_CACHE_HOME", "")
    # The XDG specification says to ignore relative paths.
    if Path(root).is_absolute():
        return Path(root) / "ieg"
    home = Path(os.path.expanduser("~"))
    return (home / ".cache" if home.is_absolute() else Path(os.devnull)) / "ieg"


def read_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """Reads a cached file's arrays by name; None if it is missing, damaged or unreadable."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            digest = (file.metadata() or {}).get(_DIGEST)
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError):
        return None
    return arrays if _digest(arrays) == digest else None


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a cached file atomically; does nothing if it cannot be written."""
    content = safetensors.numpy.save(dict(arrays), metadata={_DIGEST: _digest(arrays)})
    with contextlib.suppress(UserError, OSError):
        write_bytes_atomic(path, content)


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, values in sorted(arrays.items()):
        digest.update(f"{name} {values.dtype} {values.shape}\n".encode())
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()
