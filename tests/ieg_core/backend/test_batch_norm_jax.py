# SPDX-License-Identifier: Apache-2.0
import jax
import numpy as np
import pytest

from ieg_core.backend import batch_norm_jax, batch_norm_tensorflow
from tests.backends import assert_close

EPSILON = 1e-5


def _inputs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws x, γ, β."""
    rng = np.random.default_rng(0)
    x = 2.0 * rng.standard_normal((6, 5, 4, 3)) + np.array([1.0, -3.0, 0.5])
    return tuple(a.astype(np.float32) for a in (x, rng.uniform(0.5, 2, 3), rng.standard_normal(3)))


def test_it_is_the_function_of_the_other_backend() -> None:
    ours = batch_norm_jax.batch_norm(*_inputs(), EPSILON)
    theirs = batch_norm_tensorflow.batch_norm(*_inputs(), EPSILON)
    for actual, expected in zip(ours, theirs, strict=True):
        assert_close(np.asarray(actual), expected.numpy(), 1e-5)


def test_each_share_has_moments_of_its_own() -> None:
    x, scale, offset = _inputs()
    y, mean, variance = batch_norm_jax.batch_norm(x, scale, offset, EPSILON, num_shares=2)
    halves = [batch_norm_jax.batch_norm(half, scale, offset, EPSILON) for half in (x[:3], x[3:])]
    assert_close(np.asarray(y), np.concatenate([half[0] for half in halves]), 1e-6)
    for moment, ours in ((1, mean), (2, variance)):
        one, other = (np.asarray(half[moment]) for half in halves)
        assert np.abs(one - other).max() > 1e-2
        np.testing.assert_allclose(ours, (one + other) / 2, rtol=1e-5)


def test_bfloat16_keeps_its_moments_in_float32() -> None:
    x, scale, offset = _inputs()
    low = jax.numpy.asarray(x, "bfloat16")
    y, mean, variance = batch_norm_jax.batch_norm(low, scale, offset, EPSILON)
    assert (y.dtype, mean.dtype, variance.dtype) == ("bfloat16", "float32", "float32")
    rounded = np.asarray(low, np.float32)
    np.testing.assert_allclose(mean, rounded.mean((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(variance, rounded.var((0, 1, 2)), rtol=1e-4)


@pytest.mark.parametrize("output", [1, 2])
def test_no_gradient_flows_through_the_moments(output: int) -> None:
    x, scale, offset = _inputs()
    slope = jax.grad(lambda x: batch_norm_jax.batch_norm(x, scale, offset, EPSILON)[output].sum())(
        x
    )
    np.testing.assert_array_equal(slope, np.zeros_like(x))
