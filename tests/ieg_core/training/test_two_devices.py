# SPDX-License-Identifier: Apache-2.0
"""One step on two devices is the step on one: the global batch decides, not its shares."""

from pathlib import Path

import numpy as np
import pytest

from tests.backends import assert_close, run_on

SCRIPT = Path(__file__).parent / "steps.py"


@pytest.fixture(scope="module")
def reference() -> dict[str, np.ndarray]:
    return run_on("tensorflow", SCRIPT, "1")


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_two_devices_make_the_step_of_one(reference, backend):
    found = run_on(backend, SCRIPT, "2")
    assert len(found) > 200
    for name in found:
        assert_close(found[name], reference[name], 1e-4)
