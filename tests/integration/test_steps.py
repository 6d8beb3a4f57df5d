# SPDX-License-Identifier: Apache-2.0
"""One step of every method: TensorFlow against JAX, two devices against one.

One step on two devices is the step on one: the global batch decides, not its shares. Unless
`synchronized_batch_norm` is off; then both backends make the same other step.
"""

from pathlib import Path

import numpy as np
import pytest

from tests.backends import BACKENDS, assert_close, run_on_both
from tests.integration.steps import VARIANTS

Steps = dict[str, np.ndarray]
TOLERANCE = 1e-4
SCRIPT = Path(__file__).parent / "steps.py"


def on(steps: Steps, devices: str) -> Steps:
    prefix = f"{devices}/"
    return {name.removeprefix(prefix): steps[name] for name in steps if name.startswith(prefix)}


@pytest.fixture(scope="module")
def steps() -> dict[str, Steps]:
    return run_on_both(SCRIPT)


@pytest.fixture(scope="module")
def reference(steps) -> Steps:
    return on(steps["tensorflow"], "one")


def test_jax_makes_the_same_step(steps, reference):
    found = on(steps["jax"], "one")
    assert found.keys() == reference.keys()
    for name in found:
        assert_close(found[name], reference[name], TOLERANCE)


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_devices_make_the_step_of_one(steps, reference, backend):
    found = on(steps[backend], "two")
    assert len(found) > 200
    for name in found:
        assert_close(found[name], reference[name], TOLERANCE)


@pytest.mark.slow
def test_with_statistics_of_their_own_shares_both_backends_agree():
    steps = run_on_both(SCRIPT, "shares")
    ours, theirs = (on(steps[backend], "two") for backend in BACKENDS)
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert_close(theirs[name], ours[name], TOLERANCE)
    whole = on(steps["tensorflow"], "one")
    apart = [np.abs(ours[name] - whole[name]).max() for name in ours if "/state/stats/" in name]
    assert len(apart) == 6  # moving moments
    assert max(apart) > 1e-4


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
