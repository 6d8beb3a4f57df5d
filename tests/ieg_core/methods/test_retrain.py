# SPDX-License-Identifier: Apache-2.0
"""The loss of retraining, worked out in plain Python on a network of one dense layer."""

import numpy as np
import pytest
from keras import ops

from ieg_core.methods.mixup import Mixing
from tests.ieg_core.methods.by_hand import (
    IMAGES,
    LABELS,
    SOFT_LABELS,
    assert_gradient,
    cross_entropy,
    logits,
    mean,
    mixed,
    one_step,
    residuals_of,
    tensor,
)


@pytest.mark.parametrize("shares", [[0.75, 0.6], [1.0, 1.0]])
def test_retraining_on_a_teachers_posterior(shares):
    mixing = Mixing(
        ops.convert_to_tensor(np.array([[1], [0]], np.int32)),
        tensor([[share] for share in shares]),
        None,
    )
    alpha = 0.0 if shares == [1.0, 1.0] else 1.0
    update = one_step("retrain", [f"method.mixup_alpha={alpha}"], mixing=mixing)
    images = mixed(IMAGES, IMAGES[::-1], shares)
    labels = mixed(SOFT_LABELS, SOFT_LABELS[::-1], shares)
    rows = logits(images)
    losses = [cross_entropy(row, label) for row, label in zip(rows, labels, strict=True)]
    np.testing.assert_allclose(update.metrics["loss"], mean(losses), rtol=1e-6)
    halves = [[value / 2 for value in row] for row in residuals_of(rows, labels)]
    assert_gradient(update, images, halves)
    if not alpha:
        own = [cross_entropy(row, label) for row, label in zip(rows, LABELS, strict=True)]
        np.testing.assert_allclose(update.examples["given_label_loss"], own, rtol=1e-6)
