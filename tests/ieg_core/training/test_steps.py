# SPDX-License-Identifier: Apache-2.0
"""One step of every method: TensorFlow against JAX, one device against two."""

from pathlib import Path

import numpy as np
import pytest

from tests.backends import assert_close, run_on

TOLERANCE = 1e-4
SCRIPT = Path(__file__).parent / "steps.py"


@pytest.fixture(scope="module")
def reference() -> dict[str, np.ndarray]:
    return run_on("tensorflow", SCRIPT, "1", "1")


@pytest.mark.parametrize(
    ("backend", "num_replicas"), [("tensorflow", 2), ("jax", 1), ("jax", 2)], ids=str
)
def test_a_step_is_the_same_everywhere(reference, backend, num_replicas):
    found = run_on(backend, SCRIPT, str(num_replicas), "1")
    assert found.keys() == reference.keys()
    for name in reference:
        assert_close(found[name], reference[name], TOLERANCE)


def test_every_tensor_that_should_move_does(reference):
    for method in ("supervised", "l2r", "probe_only"):
        for name, value in reference.items():
            if name.startswith(f"{method}/state/momentum/"):
                assert np.abs(value).max() > 0, name
