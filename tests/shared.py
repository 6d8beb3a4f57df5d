# SPDX-License-Identifier: Apache-2.0
"""What several files need and is computed once for all workers of pytest-xdist."""

import fcntl
import os
from collections.abc import Callable

import numpy as np
import pytest

Arrays = dict[str, np.ndarray]


def shared_arrays(
    factory: pytest.TempPathFactory, name: str, compute: Callable[[], Arrays]
) -> Arrays:
    """Returns arrays that the first worker to come computes; the others wait for them.

    Args:
      factory: pytest's `tmp_path_factory`.
      name: Tells them from other shared arrays.
      compute: Called once a test run, unless it fails.
    """
    folder = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # of this run, above the workers' own
    path = folder / f"{name}.npz"
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            arrays = compute()
            with (folder / f"{name}.part").open("wb") as file:
                np.savez(file, **arrays)
            (folder / f"{name}.part").rename(path)
        with np.load(path) as arrays:
            return dict(arrays)
