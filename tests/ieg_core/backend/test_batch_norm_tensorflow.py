# SPDX-License-Identifier: Apache-2.0
"""The fused kernel against plain operations, and both against finite differences."""

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from ieg_core.backend.batch_norm_tensorflow import batch_norm, replicas
from tests.backends import assert_close

EPSILON = 1e-5
SHAPE = (6, 5, 4, 3)
Arrays = tuple[np.ndarray, ...]


def _inputs(dtype: type = np.float32) -> Arrays:
    """Draws x, γ, β."""
    rng = np.random.default_rng(0)
    x = 2.0 * rng.standard_normal(SHAPE) + np.array([1.0, -3.0, 0.5])
    return tuple(a.astype(dtype) for a in (x, rng.uniform(0.5, 2, 3), rng.standard_normal(3)))


def _like(arrays: Arrays, seed: int) -> Arrays:
    rng = np.random.default_rng(seed)
    return tuple(rng.standard_normal(a.shape).astype(a.dtype) for a in arrays)


def _evaluate(kernel: str, inputs: Arrays, cotangent: np.ndarray, tangents: Arrays) -> Arrays:
    """Returns y, μ, σ², the gradient, the forward product and the curvature, through one graph."""

    @tf.function(autograph=False)
    def run(inputs: list, cotangent: tf.Tensor, tangents: list) -> list:
        with tf.GradientTape(persistent=True) as outer:
            outer.watch([*inputs, cotangent])
            with tf.GradientTape() as inner:
                inner.watch(inputs)
                y, mean, variance = batch_norm(*inputs, EPSILON, kernel=kernel)
            gradient = inner.gradient(y, inputs, output_gradients=cotangent)
        product = outer.gradient(gradient, cotangent, output_gradients=tangents)
        curvature = outer.gradient(gradient, inputs[:2], output_gradients=tangents)
        return [y, mean, variance, *gradient, product, *curvature]

    arrays = run(
        [tf.constant(a) for a in inputs], tf.constant(cotangent), [tf.constant(a) for a in tangents]
    )
    return tuple(a.numpy() for a in arrays)


NAMES = (
    "y",
    "mean",
    "variance",
    "dx",
    "dscale",
    "doffset",
    "product",
    "curvature x",
    "curvature γ",
)


def test_fused_equals_composite_up_to_the_second_derivative() -> None:
    inputs = _inputs()
    cotangent = _like(inputs[:1], 1)[0]
    tangents = _like(inputs, 2)
    fused = _evaluate("fused", inputs, cotangent, tangents)
    composite = _evaluate("composite", inputs, cotangent, tangents)
    for name, actual, expected in zip(NAMES, fused, composite, strict=True):
        try:
            assert_close(actual, expected, 2e-6 if name in ("y", "mean", "variance") else 1e-4)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from None


@pytest.mark.parametrize("kernel", ["fused", "composite"])
def test_moments_are_the_batchs_own_without_bessels_correction(kernel: str) -> None:
    x, scale, offset = _inputs()
    y, mean, variance = batch_norm(x, scale, offset, EPSILON, kernel=kernel)
    np.testing.assert_allclose(mean, x.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(variance, x.var((0, 1, 2)), rtol=1e-5)
    expected = scale * (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + EPSILON) + offset
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kernel", ["fused", "composite"])
def test_a_single_value_per_channel_has_no_variance(kernel: str) -> None:
    x = np.array([[[[2.0, -1.0]]]], np.float32)
    y, mean, variance = batch_norm(
        x, np.ones(2, np.float32), np.array([3.0, 4.0], np.float32), EPSILON, kernel=kernel
    )
    np.testing.assert_array_equal(mean, [2.0, -1.0])
    np.testing.assert_array_equal(variance, [0.0, 0.0])
    np.testing.assert_allclose(np.ravel(y), [3.0, 4.0])


def _differences(function: Callable[[Arrays], np.ndarray], at: Arrays, along: Arrays) -> np.ndarray:
    step = 1e-5
    ahead = tuple(a + step * d for a, d in zip(at, along, strict=True))
    behind = tuple(a - step * d for a, d in zip(at, along, strict=True))
    return (function(ahead) - function(behind)) / (2 * step)


def test_float64_derivatives_are_finite_differences() -> None:
    inputs = _inputs(np.float64)
    cotangent = _like(inputs[:1], 1)[0]
    tangents = _like(inputs, 2)
    _, _, _, *gradient, product, curvature_x, curvature_scale = _evaluate(
        "auto", inputs, cotangent, tangents
    )

    def value(at: Arrays) -> np.ndarray:
        return batch_norm(*at, EPSILON)[0].numpy()

    numeric = _differences(value, inputs, tangents)
    assert_close(product, numeric, 1e-7)
    # ⟨cotangent, J·tangents⟩ = ⟨Jᵀ·cotangent, tangents⟩
    pulled = sum(float((g * t).sum()) for g, t in zip(gradient, tangents, strict=True))
    assert pulled == pytest.approx(float((cotangent * numeric).sum()), rel=1e-7)

    def pushed(at: Arrays) -> np.ndarray:
        _, _, _, *slopes, _, _, _ = _evaluate("auto", at, cotangent, tangents)
        return np.array(sum((s * t).sum() for s, t in zip(slopes, tangents, strict=True)))

    along = (*_like(inputs[:2], 3), np.zeros(3))
    slope = float((curvature_x * along[0]).sum() + (curvature_scale * along[1]).sum())
    assert slope == pytest.approx(float(_differences(pushed, inputs, along)), rel=1e-6)


def test_a_channel_that_hardly_varies_over_replicas_stays_finite() -> None:
    # In float32, the mean of these squares is below the square of their mean by 1.5e-5.
    here, there = (np.full((2, 2, 2, 3), value, np.float32) for value in (15.54571, 15.546404))
    moments = np.stack([there[0, 0, 0], there[0, 0, 0] ** 2])
    y, _, variance = batch_norm(
        tf.constant(here),
        tf.ones(3),
        tf.zeros(3),
        EPSILON,
        sum_over_replicas=lambda own: own + moments,
        num_replicas=2,
    )
    assert np.isfinite(y).all()
    assert (variance.numpy() >= 0).all()


@pytest.mark.parametrize("kernel", ["fused", "composite"])
def test_bfloat16_keeps_its_moments_in_float32(kernel: str) -> None:
    x, scale, offset = _inputs()
    low = tf.cast(x, tf.bfloat16)
    with tf.GradientTape() as tape:
        tape.watch(low)
        y, mean, variance = batch_norm(low, scale, offset, EPSILON, kernel=kernel)
        loss = tf.reduce_sum(tf.cast(y, tf.float32) ** 3)
    assert (y.dtype, mean.dtype, variance.dtype) == (tf.bfloat16, tf.float32, tf.float32)
    rounded = tf.cast(low, tf.float32).numpy()
    np.testing.assert_allclose(mean, rounded.mean((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(variance, rounded.var((0, 1, 2)), rtol=1e-4)
    exact = batch_norm(rounded, scale, offset, EPSILON, kernel="composite")[0]
    np.testing.assert_allclose(tf.cast(y, tf.float32), exact, atol=0.05)
    assert tape.gradient(loss, low).dtype == tf.bfloat16


@pytest.mark.parametrize("kernel", ["fused", "composite"])
def test_no_gradient_flows_through_the_moments(kernel: str) -> None:
    inputs = [tf.constant(a) for a in _inputs()]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        _, mean, variance = batch_norm(*inputs, EPSILON, kernel=kernel)
        loss = tf.reduce_sum(mean) + tf.reduce_sum(variance)
    assert tape.gradient(loss, inputs) == [None, None, None]


def test_moments_of_two_halves_are_those_of_the_whole() -> None:
    x, scale, offset = _inputs()
    whole, mean, variance = batch_norm(x, scale, offset, EPSILON)
    halves = [x[:3], x[3:]]
    stacks = [
        tf.stack([h.mean((0, 1, 2)), h.var((0, 1, 2)) + h.mean((0, 1, 2)) ** 2]) for h in halves
    ]
    for index, half in enumerate(halves):
        other = stacks[1 - index]
        y, joint_mean, joint_variance = batch_norm(
            half,
            scale,
            offset,
            EPSILON,
            sum_over_replicas=lambda moments, other=other: moments + other,
            num_replicas=2,
        )
        np.testing.assert_allclose(joint_mean, mean, rtol=1e-5)
        np.testing.assert_allclose(joint_variance, variance, rtol=1e-5)
        np.testing.assert_allclose(y, whole[3 * index : 3 * index + 3], rtol=1e-4, atol=1e-5)


def test_fused_is_refused_where_it_does_not_exist() -> None:
    with pytest.raises(ValueError, match="float64: expected one replica and float32; use"):
        batch_norm(*_inputs(np.float64), EPSILON, kernel="fused")
    with pytest.raises(ValueError, match="num_replicas=2"):
        batch_norm(
            *_inputs(), EPSILON, kernel="fused", sum_over_replicas=lambda t: t, num_replicas=2
        )


def test_one_replica_has_nothing_to_sum() -> None:
    assert replicas() == (None, 1)
