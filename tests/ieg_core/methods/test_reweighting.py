# SPDX-License-Identifier: Apache-2.0
from collections.abc import Sequence

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from ieg_core import backend
from ieg_core.methods.losses import softmax_cross_entropy
from ieg_core.methods.reweighting import (
    clip_weights,
    label_meta_gradient,
    shift_weights,
    weight_meta_gradient,
)
from ieg_core.models import zoo
from tests.backends import assert_close

BATCH, CLASSES, SHAPE, ALPHA = 6, 3, (8, 8, 1), 0.1


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


# ∂P/∂w by forward product, by finite differences and by autodiff through the look-ahead.


def _draw(seed: int) -> tuple[tf.Tensor, tf.Tensor]:
    rng = np.random.default_rng(seed)
    images = rng.uniform(-1, 1, (BATCH, *SHAPE))
    return tf.constant(images), tf.one_hot(
        rng.integers(0, CLASSES, BATCH), CLASSES, dtype="float64"
    )


def test_forward_product_is_the_derivative_of_the_looked_ahead_probe_loss() -> None:
    model = zoo.build("preact8", CLASSES, SHAPE, dtype="float64")
    for variable, value in zip(model.variables, zoo.initial_values(model, 0), strict=True):
        variable.assign(value)
    params = [tf.convert_to_tensor(v.value) for v in model.trainable_variables]
    stats = [tf.convert_to_tensor(v.value) for v in model.non_trainable_variables]
    (images, labels), (probe_images, probe_labels) = _draw(0), _draw(1)

    def logits_of(params: Sequence[tf.Tensor], images: tf.Tensor) -> tf.Tensor:
        return model.stateless_call(params, stats, images, training=True)[0][0]

    def probe_loss(params: Sequence[tf.Tensor]) -> tuple[tf.Tensor, None]:
        loss = softmax_cross_entropy(logits_of(params, probe_images), probe_labels)
        return tf.reduce_mean(loss), None

    def after_lookahead(weights: tf.Tensor) -> tf.Tensor:
        """Returns P(θ − α·∇Σ w_i ℓ_i), taking the inner gradient literally."""
        with tf.GradientTape() as tape:
            tape.watch(params)
            loss = tf.reduce_sum(weights * softmax_cross_entropy(logits_of(params, images), labels))
        gradient = tape.gradient(loss, params)
        return probe_loss([p - ALPHA * g for p, g in zip(params, gradient, strict=True)])[0]

    @tf.function(autograph=False)
    def by_forward_product() -> tf.Tensor:
        _, _, direction = backend.gradients(probe_loss, params)
        at_batch = backend.linearize(lambda p: (logits_of(p, images), None), params)
        product = at_batch.forward(direction)
        return weight_meta_gradient(at_batch.outputs, labels, product, ALPHA)

    @tf.function(autograph=False)
    def by_autodiff() -> tf.Tensor:
        weights = tf.zeros(BATCH, tf.float64)
        with tf.GradientTape() as tape:
            tape.watch(weights)
            value = after_lookahead(weights)
        return tape.gradient(value, weights)

    meta_gradient = by_forward_product().numpy()
    assert np.abs(meta_gradient).max() > 1e-3
    assert_close(by_autodiff().numpy(), meta_gradient, 1e-10)
    step = 1e-5
    probe = tf.function(after_lookahead, autograph=False)
    numeric = [
        float(probe(tf.constant(step * unit)) - probe(tf.constant(-step * unit))) / (2 * step)
        for unit in np.eye(BATCH)
    ]
    assert_close(np.array(numeric), meta_gradient, 1e-6)


@pytest.mark.parametrize("kernel", ["composite", "keras"])
def test_every_batch_norm_gives_the_same_forward_product(kernel: str) -> None:
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (BATCH, *SHAPE)).astype(np.float32)

    def product(batch_norm: str) -> np.ndarray:
        model = zoo.build("preact8", CLASSES, SHAPE, batch_norm=batch_norm)
        values = dict(
            zip((v.path for v in model.variables), zoo.initial_values(model, 0), strict=True)
        )
        params = [tf.constant(values[v.path]) for v in model.trainable_variables]
        stats = [tf.constant(values[v.path]) for v in model.non_trainable_variables]

        @tf.function(autograph=False)
        def run() -> tf.Tensor:
            at_batch = backend.linearize(
                lambda p: (model.stateless_call(p, stats, images, training=True)[0][0], None),
                params,
            )
            return at_batch.forward([tf.cos(tf.cumsum(tf.ones_like(p))) for p in params])

        return keras.ops.convert_to_numpy(run())

    assert_close(product(kernel), product("fused"))
