# SPDX-License-Identifier: Apache-2.0
"""The folder of this package's caches: $XDG_CACHE_HOME/ieg (~/.cache/ieg)."""

import os
from collections.abc import Mapping
from pathlib import Path


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
