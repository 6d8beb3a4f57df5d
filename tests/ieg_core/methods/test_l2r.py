# SPDX-License-Identifier: Apache-2.0
"""L2R's weights and loss, worked out in plain Python on a network of one dense layer."""

import numpy as np

from tests.ieg_core.methods.by_hand import (
    ALPHA,
    BIAS,
    DECAY,
    IMAGES,
    KERNEL,
    LABELS,
    assert_gradient,
    clipped,
    cross_entropy,
    dot,
    logits,
    one_step,
    probe_product,
    residuals_of,
)


def test_l2r():
    update = one_step("l2r")
    rows = logits(IMAGES)
    # From w = 0 without momentum only the decay moves: θ̂ = (1 − α·wd)·kernel.
    lookahead = ([[value * (1 - ALPHA * DECAY) for value in row] for row in KERNEL], BIAS)
    product = probe_product(IMAGES, lookahead)
    residuals = residuals_of(rows, LABELS)
    weights = clipped([-ALPHA * dot(r, dz) for r, dz in zip(residuals, product, strict=True)])
    assert sum(weight > 0 for weight in weights) == 1
    np.testing.assert_allclose(update.examples["weight"], weights, rtol=1e-4)
    losses = [cross_entropy(row, label) for row, label in zip(rows, LABELS, strict=True)]
    np.testing.assert_allclose(update.metrics["loss"], dot(weights, losses), rtol=1e-4)
    assert_gradient(
        update, IMAGES, [[w * r for r in row] for w, row in zip(weights, residuals, strict=True)]
    )
