# SPDX-License-Identifier: Apache-2.0
"""Every term of the loss, worked out in plain Python on a network of one dense layer."""

import numpy as np
import pytest
from keras import ops

from ieg_core.methods.mixup import Mixing
from tests.ieg_core.methods.by_hand import (
    IMAGES,
    LABELS,
    assert_gradient,
    cross_entropy,
    logits,
    mean,
    mixed,
    one_step,
    residuals_of,
    tensor,
)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_plain_training(smoothing):
    update = one_step("supervised", [f"method.label_smoothing={smoothing}"])
    labels = [[(1 - smoothing) * y + smoothing / 2 for y in label] for label in LABELS]
    rows = logits(IMAGES)
    losses = [cross_entropy(row, label) for row, label in zip(rows, labels, strict=True)]
    np.testing.assert_allclose(update.metrics["loss"], mean(losses), rtol=1e-6)
    halves = [[value / 2 for value in row] for row in residuals_of(rows, labels)]
    assert_gradient(update, IMAGES, halves)


def test_mixup_trains_on_the_mixed_image_and_label():
    mixing = Mixing(
        ops.convert_to_tensor(np.array([[1], [0]], np.int32)), tensor([[0.75], [0.6]]), None
    )
    update = one_step("mixup", mixing=mixing)
    images = mixed(IMAGES, IMAGES[::-1], [0.75, 0.6])
    labels = mixed(LABELS, LABELS[::-1], [0.75, 0.6])
    assert labels[0] == [0.75, 0.25]
    rows = logits(images)
    losses = [cross_entropy(row, label) for row, label in zip(rows, labels, strict=True)]
    np.testing.assert_allclose(update.metrics["loss"], mean(losses), rtol=1e-6)
    halves = [[value / 2 for value in row] for row in residuals_of(rows, labels)]
    assert_gradient(update, images, halves)
