# SPDX-License-Identifier: Apache-2.0
"""One step of every method: TensorFlow against JAX."""

from pathlib import Path

import numpy as np
import pytest

from tests.backends import assert_close, run_on
from tests.ieg_core.training.steps import VARIANTS

TOLERANCE = 1e-4
SCRIPT = Path(__file__).parent / "steps.py"


@pytest.fixture(scope="module")
def reference(one_step) -> dict[str, np.ndarray]:
    return one_step()


def test_jax_makes_the_same_step(reference):
    found = run_on("jax", SCRIPT, "1")
    assert found.keys() == reference.keys()
    for name in found:
        assert_close(found[name], reference[name], TOLERANCE)


def test_every_parameter_moves(reference):
    names = [name for name in reference if "/state/momentum/" in name]
    assert {name.split("/")[0] for name in names} == set(VARIANTS)
    for name in names:
        assert np.abs(reference[name]).max() > 0, name


def test_forward_corrects_or_counts(reference):
    corrected = reference["forward/state/method/counts"]
    counted = reference["forward_counting/state/method/counts"]
    assert counted.sum() == corrected.sum() + 40
    assert (counted >= corrected).all()
    losses = [reference[f"{name}/metrics/loss"] for name in ("forward", "supervised")]
    assert abs(losses[0] - losses[1]) > 1e-3
    np.testing.assert_array_equal(reference["forward_counting/metrics/loss"], losses[1])


def test_the_variants_differ_where_they_should(reference):
    weights = {
        name.split("/")[0]: value for name, value in reference.items() if name.endswith("/weight")
    }
    assert (weights["fsr"] == 0).any()
    assert (weights["fsr_shift"] > 0).all()
    assert (weights["ieg_no_lookahead"] == np.float32(1 / 40)).all()
    assert len(np.unique(weights["fsr_class_weights"])) <= 10
    for term in ("mix_probe_loss", "mix_pseudo_label_loss", "consistency_loss"):
        assert reference[f"ieg/metrics/{term}"] > 0
        assert reference[f"ieg_plain/metrics/{term}"] == 0
    coefficients = reference["ieg/examples/label_coefficient"]
    assert set(np.unique(coefficients)) == {0.0, 1.0}
