# SPDX-License-Identifier: Apache-2.0
"""Bounds for archives that a library unpacks."""

import zipfile
from pathlib import Path
from typing import Final

from ieg_core.errors import UserError, printable

_MOST_TEXT: Final = 64 << 20
_MOST_INFLATION: Final = 100


def require_sane_size(path: Path, arrays: str = ".h5") -> None:
    """Refuses an archive that unpacks to much more than its size, such as a `.keras` file.

    What is no archive is left to its reader.

    Args:
      path: The archive.
      arrays: The suffix of the files in it that may be large.

    Raises:
      UserError: When a file in it does.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    # zipfile does not document which exceptions a damaged archive can cause.
    except Exception:
        return
    for member in members:
        limit = max(_MOST_TEXT, _MOST_INFLATION * member.compress_size)
        if not member.filename.endswith(arrays):
            limit = _MOST_TEXT
        if member.file_size > limit:
            raise UserError(
                f"{path} unpacks {printable(member.filename)} to {member.file_size:,} bytes: "
                f"expected at most {limit:,}; write the file again, with less compression"
            )
