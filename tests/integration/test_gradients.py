# SPDX-License-Identifier: Apache-2.0
"""In float64: meta-gradients against finite differences, L2R's update against one by hand.

On TensorFlow: Keras's operations round to float32 on JAX, whose steps are compared with
TensorFlow's instead (test_steps.py).
"""

from pathlib import Path

import numpy as np
import pytest

from tests.backends import run_on

SCRIPT = Path(__file__).parent / "gradients.py"


@pytest.fixture(scope="module")
def found() -> dict[str, np.ndarray]:
    return run_on("tensorflow", SCRIPT)


def test_the_meta_gradient_is_that_of_the_probe_loss_after_a_look_ahead(found):
    expected = found["differences"]
    assert np.abs(expected).max() > 1e-4
    error = np.linalg.norm(found["meta_gradient"] - expected) / np.linalg.norm(expected)
    assert error < 1e-4


def test_the_update_is_the_gradient_of_the_weighted_loss(found):
    np.testing.assert_allclose(found["l2r_weights"], found["weights"], rtol=1e-9)
    assert 0 < (found["weights"] > 0).sum() < len(found["weights"])
    pairs = [name for name in found if name.startswith("l2r_") and "/" in name]
    assert len(pairs) == 12 + 6  # parameters and moving moments
    for name in pairs:
        expected = found[name.replace("l2r_", "hand_")]
        scale = np.abs(expected).max()
        np.testing.assert_allclose(found[name], expected, rtol=0, atol=1e-9 * scale, err_msg=name)


@pytest.mark.parametrize("of", ["weight", "label"])
def test_iegs_meta_gradients_are_those_of_the_probe_loss_after_its_look_ahead(found, of):
    expected = found[f"ieg_by_{of}_differences"]
    assert np.abs(expected).max() > 1e-5
    error = np.linalg.norm(found[f"ieg_by_{of}"] - expected) / np.linalg.norm(expected)
    assert error < 1e-4


def test_ieg_decides_what_the_differences_say(found):
    expected = found["ieg_weights_by_differences"]
    assert 0 < (expected > 0).sum() < len(expected)
    assert np.linalg.norm(found["ieg_weights"] - expected) < 1e-4 * np.linalg.norm(expected)
    slopes = found["ieg_by_label_differences"]
    assert (slopes < 0).any()
    assert (slopes > 0).any()
    np.testing.assert_array_equal(found["ieg_coefficients"], slopes < 0)


def test_fsrs_closed_form_is_the_gradient_through_the_dense_look_ahead(found):
    expected = found["fsr_weights_by_differences"]
    assert 0 < (expected > 0).sum() < len(expected)
    assert np.linalg.norm(found["fsr_weights"] - expected) < 1e-5 * np.linalg.norm(expected)


def test_fsrs_first_score_is_a_tenth_of_the_negative_margin(found):
    np.testing.assert_allclose(found["fsr_scores"], -0.1 * found["fsr_margin"], rtol=1e-6)


@pytest.mark.parametrize("method", ["forward", "logit_adjustment"])
def test_the_gradient_is_that_of_the_changed_loss(found, method):
    expected = found[f"{method}_differences"]
    assert np.abs(expected).min() > 1e-3
    np.testing.assert_allclose(found[f"{method}_slopes"], expected, rtol=1e-4)
