# SPDX-License-Identifier: Apache-2.0
"""Arrays in safetensors files that show whether they are as this program wrote them.

A file's metadata hold one sealed JSON object (`ieg_core.store.seal`) under "ieg": whatever its
writer wants to know about the arrays, and "arrays", the SHA-256 of their names, types, shapes and
values.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from ieg_core.errors import UserError
from ieg_core.host.files import write_bytes_atomic
from ieg_core.store.seal import parse_json, require_regular, seal, unseal

_HEADER: Final = "ieg"
_ARRAYS: Final = "arrays"


def encode(arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any] | None = None) -> bytes:
    """Returns the content of a file.

    Args:
      arrays: The arrays by name.
      facts: A JSON object to store with them; without the key "arrays".

    Raises:
      ValueError: When a fact is NaN or infinity.
    """
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    header = seal({**(facts or {}), _ARRAYS: digest(arrays)})
    return safetensors.numpy.save(arrays, {_HEADER: json.dumps(header)})


def read(path: Path, remedy: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads a file and checks its digests.

    Args:
      path: The file.
      remedy: What a user can do about a damaged file, for the error.

    Returns:
      The arrays by name, and the facts that are stored with them.

    Raises:
      FileNotFoundError: When there is no such file.
      UserError: When the file cannot be read, is damaged, or was altered.
    """
    try:
        require_regular(os.stat(path).st_mode)
        with safe_open(path, framework="numpy") as file:
            facts = _facts(file)
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if digest(arrays) != facts.pop(_ARRAYS, None):
            raise ValueError("it was altered: its sha256 does not match its arrays")
        return arrays, facts
    except FileNotFoundError:
        raise
    except _DAMAGE as error:
        raise _damaged(path, error, remedy) from error


def read_facts(path: Path, remedy: str) -> dict[str, Any]:
    """Reads what is stored with the arrays, without reading or checking the arrays.

    Args, Raises: As `read`.
    """
    try:
        require_regular(os.stat(path).st_mode)
        with safe_open(path, framework="numpy") as file:
            facts = _facts(file)
        facts.pop(_ARRAYS, None)
        return facts
    except FileNotFoundError:
        raise
    except _DAMAGE as error:
        raise _damaged(path, error, remedy) from error


def read_cached(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    """Reads a file that can be computed again; None if it is missing, unreadable or damaged."""
    try:
        return read(path, "")
    except (OSError, UserError):
        return None


def write_cached(
    path: Path, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any] | None = None
) -> None:
    """Writes a file that can be computed again; does nothing if it cannot be written."""
    with contextlib.suppress(UserError, OSError):
        write_bytes_atomic(path, encode(arrays, facts))


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Returns the SHA-256 of the names, types, shapes and values of arrays, in hexadecimal."""
    summed = hashlib.sha256()
    for name, values in sorted(arrays.items()):
        summed.update(f"{name} {values.dtype} {values.shape}\n".encode())
        summed.update(np.ascontiguousarray(values).data)
    return summed.hexdigest()


# Types and names of other arrays than NumPy's, in a damaged header, raise the last three.
_DAMAGE: Final = (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError)


def _facts(file: Any) -> dict[str, Any]:
    metadata = file.metadata() or {}
    if _HEADER not in metadata:
        raise ValueError("it has no sha256; `ieg migrate` adds it to an earlier version's files")
    return unseal(parse_json(metadata[_HEADER].encode()))


def _damaged(path: Path, error: Exception, remedy: str) -> UserError:
    reason = (isinstance(error, OSError) and error.strerror) or str(error)
    return UserError(f"{path} is damaged ({' '.join(reason.split())}): {remedy}")
