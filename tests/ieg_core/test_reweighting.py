# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from keras import ops

from ieg_core.reweighting import clip_weights, weight_meta_gradient


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
