# SPDX-License-Identifier: Apache-2.0
"""Digests that show whether a file is as this program wrote it.

Every file that the program writes and reads back contains the SHA-256 of everything else in it. A
sealed JSON object has it under "sha256": the digest of the object without that key, in its
canonical form (keys sorted, no spaces, ASCII only). Layout and order of the keys are free. Binary
files contain such an object, which also holds the digest of the binary part
(`ieg_core.store.arrays`, `ieg_core.store.model_file`).

This detects damage and edits by hand, not an attacker, who can compute the digest as well.
"""

import errno
import hashlib
import json
import math
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

DIGEST: Final = "sha256"
MAX_BYTES: Final = 1 << 26
"""Maximum size of a JSON file, about 500 times that of the largest one known."""
_MOST_LEVELS: Final = 100
"""Maximum nesting. Python's own limit depends on who calls, and fails them later."""


def seal(value: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a JSON object with its digest; raises ValueError for NaN and infinity.

    Keys are strings at every depth: JSON would turn others into strings, which sort differently.
    """
    return {**value, DIGEST: _digest(value)}


def unseal(value: object) -> dict[str, Any]:
    """Checks the digest of a JSON object, and returns the object without it.

    Raises:
      ValueError: When it is not an object, or its digest is missing or does not match.
    """
    if not isinstance(value, dict):
        raise ValueError(f"received {shortened(value)}, expected an object")
    rest = {key: each for key, each in value.items() if key != DIGEST}
    if DIGEST not in value:
        raise ValueError(f"it has no {DIGEST}; `ieg migrate` adds it to an earlier version's files")
    if value[DIGEST] != _digest(rest):
        raise ValueError(f"it was edited or altered: its {DIGEST} does not match its content")
    return rest


def parse_json(data: bytes) -> Any:
    """Decodes JSON from a file that may be damaged or hostile.

    Raises:
      ValueError: When it is not valid JSON in UTF-8, is nested too deeply, or has a number that is
        not finite or has thousands of digits.
    """
    try:
        value = json.loads(data.decode(), parse_constant=_refuse, parse_float=_finite)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    level = [value]
    for _ in range(_MOST_LEVELS):
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return value
    raise ValueError("it is nested too deeply")


def read_file(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """Reads a regular file; never blocks on a pipe.

    Raises:
      FileNotFoundError: When there is no such file, or only a link to one.
      OSError: When it cannot be read, is not a regular file, or exceeds `max_bytes`.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, "rb") as file:
        status = os.fstat(handle)
        require_regular(status.st_mode)
        if status.st_size > max_bytes:
            raise OSError(errno.EFBIG, f"it has {status.st_size:,} bytes, at most {max_bytes:,}")
        return file.read()


def require_regular(mode: int) -> None:
    """Raises OSError unless a file's mode is that of a regular file."""
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is not a regular file")


def shortened(value: object, most: int = 80) -> str:
    """Returns the representation of an invalid value, shortened for an error."""
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}…"


def _digest(value: Mapping[str, Any]) -> str:
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return hashlib.sha256(text.encode()).hexdigest()


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{shortened(text)} is too large a number")
    return number
