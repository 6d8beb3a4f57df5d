# SPDX-License-Identifier: Apache-2.0
"""∂P/∂w by forward product, by finite differences and by autodiff through the look-ahead."""

from collections.abc import Sequence

import keras
import numpy as np
import pytest
import tensorflow as tf

from ieg_core import backend
from ieg_core.methods.losses import softmax_cross_entropy
from ieg_core.methods.reweighting import weight_meta_gradient
from ieg_core.models import zoo
from tests.backends import assert_close

BATCH, CLASSES, SHAPE, ALPHA = 6, 3, (8, 8, 1), 0.1


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
