# SPDX-License-Identifier: Apache-2.0
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.backends import run_on
from tests.shared import shared_arrays


@pytest.fixture(scope="session")
def one_step(tmp_path_factory) -> Callable[[], dict[str, np.ndarray]]:
    """A function that gives a step of every method on one device of TensorFlow, by steps.py.

    A function, so that what can be computed without the reference need not wait for it.
    """
    script = Path(__file__).parent / "steps.py"
    compute = functools.partial(run_on, "tensorflow", script, "1")
    return functools.cache(lambda: shared_arrays(tmp_path_factory, "one-step", compute))
