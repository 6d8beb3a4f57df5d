# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from scipy.special import log_softmax

from scripts.early_collapse import (
    Features,
    consensus,
    mean_flow,
    normalized,
    normalized_slope,
    sharpened,
    train_dense,
)


def test_the_slope_is_that_of_the_mean_loss_and_orthogonal_to_the_logits():
    rng = np.random.default_rng(0)
    logits, targets = rng.standard_normal((4, 10)), rng.dirichlet(np.ones(10), 4)

    def loss(z):
        return -(targets * log_softmax(normalized(z)[0], axis=-1)).sum(-1).mean()

    slope = normalized_slope(logits, targets) / 4
    step = np.zeros_like(logits)
    step[1, 2] = 1e-5
    difference = (loss(logits + step) - loss(logits - step)) / 2e-5
    np.testing.assert_allclose(slope[1, 2], difference, rtol=1e-5)
    np.testing.assert_allclose((slope * logits).sum(), 0, atol=1e-6)


@pytest.mark.parametrize("targets", [np.eye(10), sharpened(consensus(spread=0))])
def test_no_normalized_loss_moves_the_common_part_of_a_consensus(targets):
    slope = normalized_slope(consensus(spread=0), targets)
    np.testing.assert_allclose(slope.mean(0), 0, atol=1e-6)


@pytest.mark.parametrize(("weight", "right"), [(1, 1.0), (5, 0.1)])
def test_a_large_weight_of_pseudo_labels_holds_the_consensus(weight, right):
    assert mean_flow(weight, noise=0.8, right_weight=0.5, carried=0.25) == right


@pytest.mark.parametrize(
    ("weight", "centered", "collapses"), [(0.5, False, False), (8, False, True), (8, True, False)]
)
def test_a_dense_layer_alone_collapses(weight, centered, collapses):
    rng = np.random.default_rng(0)
    labels = np.arange(600) % 10
    values = np.maximum(rng.standard_normal((600, 32)) + rng.standard_normal((10, 32))[labels], 0)
    features = Features(values * np.sqrt(10 / (values**2).sum(1).mean()), labels)
    right, most_frequent = train_dense(
        features, weight, noise=0.8, steps=100, centered=centered, head_start=3.0
    )
    assert (most_frequent > 0.9) == collapses
    assert (right < 0.2) == collapses
