# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from keras import ops

from ieg_core.methods.reweighting import (
    clip_weights,
    label_meta_gradient,
    shift_weights,
    weight_meta_gradient,
)


def test_meta_gradient_by_hand() -> None:
    logits = np.log(np.array([[1.0, 3.0], [1.0, 1.0]], np.float32))
    labels = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    dz = np.array([[2.0, 1.0], [4.0, -2.0]], np.float32)
    # Residuals (-3/4, 3/4) and (1/2, -1/2); products -3/4 and 3.
    gradient = ops.convert_to_numpy(weight_meta_gradient(logits, labels, dz, lookahead_lr=0.1))
    np.testing.assert_allclose(gradient, [0.075, -0.3], rtol=1e-6)


def test_clip_weights_by_hand() -> None:
    weights = ops.convert_to_numpy(clip_weights(np.array([-3.0, 2.0, -1.0], np.float32)))
    np.testing.assert_allclose(weights, [3 / 4.00001, 0.0, 1 / 4.00001], rtol=1e-6)


def test_nothing_helps_nothing_weighs() -> None:
    weights = ops.convert_to_numpy(clip_weights(np.array([0.5, 0.0, 2.0], np.float32)))
    np.testing.assert_array_equal(weights, np.zeros(3))


def test_the_offset_shrinks_weights_of_tiny_gradients() -> None:
    weights = ops.convert_to_numpy(clip_weights(np.array([-1e-5, 0.0], np.float32)))
    np.testing.assert_allclose(weights, [0.5, 0.0], rtol=1e-5)


def test_weights_are_shared_over_replicas() -> None:
    # The other replica's examples sum to 6.
    weights = ops.convert_to_numpy(
        clip_weights(np.array([-3.0, -1.0], np.float32), lambda total: total + 6.0)
    )
    np.testing.assert_allclose(weights, [0.3, 0.1], rtol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_weights_follow_their_examples(seed: int) -> None:
    rng = np.random.default_rng(seed)
    gradient = rng.standard_normal(20).astype(np.float32)
    order = rng.permutation(20)
    weights = ops.convert_to_numpy(clip_weights(gradient))
    assert weights.min() >= 0
    assert 0.9999 < weights.sum() < 1
    permuted = ops.convert_to_numpy(clip_weights(gradient[order]))
    np.testing.assert_allclose(permuted, weights[order], rtol=1e-6)


def test_meta_gradient_of_soft_labels_by_hand() -> None:
    logits = np.log(np.array([[1.0, 3.0]], np.float32))
    labels = np.array([[0.5, 0.5]], np.float32)
    # Residual (1/4 - 1/2, 3/4 - 1/2); product -1/4 * 2 + 1/4 * 6 = 1.
    gradient = weight_meta_gradient(logits, labels, np.array([[2.0, 6.0]], np.float32), 0.2)
    np.testing.assert_allclose(gradient, [-0.2], rtol=1e-6)


def test_label_meta_gradient_by_hand() -> None:
    given = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]], np.float32)
    pseudo = np.array([[0.2, 0.8], [0.2, 0.8], [1.0, 0.0]], np.float32)
    dz = np.array([[1.0, -2.0], [1.0, -2.0], [3.0, 4.0]], np.float32)
    # Differences (-0.8, 0.8), (0.2, -0.2), (0, 0); products -2.4, 0.6, 0; times -0.1 * 1/2.
    gradient = label_meta_gradient(given, pseudo, dz, 0.5, lookahead_lr=0.1)
    np.testing.assert_allclose(gradient, [0.12, -0.03, 0.0], rtol=1e-5, atol=1e-9)


def test_label_meta_gradient_takes_each_examples_weight() -> None:
    given, pseudo = np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32)[::-1]
    # Differences (-1, 1) and (1, -1); products 1 and -3; times -1 * w.
    dz = np.array([[2.0, 3.0], [0.0, 3.0]], np.float32)
    gradient = label_meta_gradient(given, pseudo, dz, np.array([0.5, 2.0], np.float32), 1.0)
    np.testing.assert_allclose(gradient, [-0.5, 6.0], rtol=1e-6)


def test_shift_weights_by_hand() -> None:
    # u = 1/4 - g = (0.15, 0.25, 0.55, 0.25), minus its minimum, plus 1/4: (0.25, 0.35, 0.65, 0.35).
    weights = shift_weights(np.array([0.1, 0.0, -0.3, 0.0], np.float32), 4)
    total = 1.6 + 1e-5
    expected = [0.25 / total, 0.35 / total, 0.65 / total, 0.35 / total]
    np.testing.assert_allclose(weights, expected, rtol=1e-6)


def test_equal_gradients_shift_to_equal_weights() -> None:
    weights = shift_weights(np.full(5, 3.0, np.float32), 5)
    np.testing.assert_allclose(weights, np.full(5, 0.2 / 1.00001), rtol=1e-5)


def test_shift_weights_are_shared_over_replicas() -> None:
    # This replica's u = (0.15, 0.25); the other's lowest is -0.05, and its shifted ones sum to 1.
    weights = shift_weights(
        np.array([0.1, 0.0], np.float32), 4, lambda total: total + 1.0, lambda _: -0.05
    )
    total = 0.45 + 0.55 + 1.0 + 1e-5
    np.testing.assert_allclose(weights, [0.45 / total, 0.55 / total], rtol=1e-6)
