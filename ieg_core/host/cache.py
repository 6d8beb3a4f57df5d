# SPDX-License-Identifier: Apache-2.0
"""The folder of this package's caches: $XDG_CACHE_HOME/ieg (~/.cache/ieg)."""

import os
from collections.abc import Mapping
from pathlib import Path


def cache_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Returns this package's folder in the user's cache directory."""
    root = environ.get("XDG_CACHE_HOME", "")
    # The XDG specification says to ignore relative paths.
    return (Path(root) if Path(root).is_absolute() else Path.home() / ".cache") / "ieg"
