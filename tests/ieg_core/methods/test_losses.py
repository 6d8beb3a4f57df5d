# SPDX-License-Identifier: Apache-2.0
import math

import numpy as np
import pytest
from keras import ops

from ieg_core.methods.losses import (
    forward_cross_entropy,
    kl_divergence,
    normalize_logits,
    sharpen,
    smooth_labels,
    softmax_cross_entropy,
)


def test_cross_entropy_by_hand() -> None:
    logits = np.log(np.array([[1.0, 3.0], [1.0, 1.0]], np.float32))
    labels = np.array([[1.0, 0.0], [0.25, 0.75]], np.float32)
    # Softmax (1/4, 3/4) and (1/2, 1/2).
    expected = [np.log(4.0), np.log(2.0)]
    loss = ops.convert_to_numpy(softmax_cross_entropy(logits, labels))
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_cross_entropy_survives_large_logits() -> None:
    logits = np.array([[1000.0, 0.0, -1000.0]], np.float32)
    loss = ops.convert_to_numpy(softmax_cross_entropy(logits, np.eye(3, dtype=np.float32)[2:]))
    np.testing.assert_allclose(loss, [2000.0])


def test_smoothing_by_hand() -> None:
    labels = np.array([[0.0, 1.0, 0.0, 0.0]], np.float32)
    np.testing.assert_allclose(smooth_labels(labels, 0.2), [[0.05, 0.85, 0.05, 0.05]], rtol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_smoothed_labels_stay_distributions(smoothing: float) -> None:
    labels = np.eye(5, dtype=np.float32)
    np.testing.assert_allclose(smooth_labels(labels, smoothing).sum(-1), np.ones(5), rtol=1e-6)


def test_cross_entropy_of_a_smoothed_label_by_hand() -> None:
    logits = np.log(np.array([[1.0, 2.0, 5.0]], np.float32))
    # Softmax (1/8, 2/8, 5/8); the label (0, 0, 1) smoothed by 0.3 is (0.1, 0.1, 0.8).
    expected = -(0.1 * math.log(1 / 8) + 0.1 * math.log(2 / 8) + 0.8 * math.log(5 / 8))
    labels = smooth_labels(np.array([[0.0, 0.0, 1.0]], np.float32), 0.3)
    np.testing.assert_allclose(softmax_cross_entropy(logits, labels), [expected], rtol=1e-6)


def test_normalized_logits_by_hand() -> None:
    # The mean square over the whole block is (9 + 16 + 0 + 0 + 0 + 25) / 6 = 25/3.
    logits = np.array([[3.0, 4.0, 0.0], [0.0, 0.0, -5.0]], np.float32)
    scale = math.sqrt(25 / 3 + 1e-8)
    expected = [[3 / scale, 4 / scale, 0], [0, 0, -5 / scale]]
    np.testing.assert_allclose(normalize_logits(logits, 2), expected, rtol=1e-6)


def test_normalized_logits_of_zero_stay_zero() -> None:
    np.testing.assert_array_equal(normalize_logits(np.zeros((2, 3), np.float32), 2), 0.0)


def test_tiny_logits_are_held_back_by_the_offset() -> None:
    # Mean square 1e-8, as large as the offset: 1e-4 / sqrt(2e-8).
    logits = np.full((1, 2), 1e-4, np.float32)
    np.testing.assert_allclose(normalize_logits(logits, 1), 1 / math.sqrt(2), rtol=1e-5)


def test_the_block_to_normalize_is_that_of_all_replicas() -> None:
    # The other replica's squares sum to 24: (1 + 1 + 24) over a global block of 2 x 2.
    logits = np.array([[1.0, -1.0]], np.float32)
    found = normalize_logits(logits, 2, lambda total: total + 24.0)
    scale = math.sqrt(26 / 4 + 1e-8)
    np.testing.assert_allclose(found, [[1 / scale, -1 / scale]], rtol=1e-6)


def test_sharpening_by_hand() -> None:
    # T = 1/2 squares: (0.36, 0.09, 0.01) / 0.46.
    found = sharpen(np.array([[0.6, 0.3, 0.1]], np.float32), 0.5)
    np.testing.assert_allclose(found, [[0.36 / 0.46, 0.09 / 0.46, 0.01 / 0.46]], rtol=1e-6)


def test_a_temperature_of_two_flattens_and_of_one_changes_nothing() -> None:
    probabilities = np.array([[0.64, 0.36]], np.float32)
    np.testing.assert_allclose(sharpen(probabilities, 2.0), [[0.8 / 1.4, 0.6 / 1.4]], rtol=1e-6)
    np.testing.assert_allclose(sharpen(probabilities, 1.0), probabilities, rtol=1e-6)


def test_divergence_by_hand() -> None:
    # Softmax (1/4, 3/4) against (1/2, 1/2), and two equal ones however the logits are shifted.
    target = np.array([[0.0, math.log(3)], [5.0, 7.0]], np.float32)
    other = np.array([[2.0, 2.0], [-1.0, 1.0]], np.float32)
    expected = [0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5), 0.0]
    np.testing.assert_allclose(kl_divergence(target, other), expected, rtol=1e-5, atol=1e-7)


def test_divergence_is_not_symmetric() -> None:
    one = np.array([[0.0, math.log(9)]], np.float32)
    even = np.zeros((1, 2), np.float32)
    # KL((1/2, 1/2) || (1/10, 9/10)) = 1/2 log 5 + 1/2 log(5/9).
    expected = 0.5 * math.log(5) + 0.5 * math.log(5 / 9)
    np.testing.assert_allclose(kl_divergence(even, one), [expected], rtol=1e-5)


def test_the_forward_loss_by_hand() -> None:
    # Softmax (1/4, 3/4): P(given 0) = 1/4 x 0.9 + 3/4 x 0.2 = 0.375, P(given 1) = 0.625.
    logits = np.array([[0.0, math.log(3)]] * 2, np.float32)
    transition = np.array([[0.9, 0.1], [0.2, 0.8]], np.float32)
    found = forward_cross_entropy(logits, np.eye(2, dtype=np.float32), transition)
    np.testing.assert_allclose(found, [-math.log(0.375), -math.log(0.625)], rtol=1e-6)


def test_the_forward_loss_of_extreme_logits_is_bounded_by_the_smallest_entry() -> None:
    transition = np.array([[0.99, 0.01], [0.02, 0.98]], np.float32)
    logits = np.array([[1e4, -1e4], [-1e4, 1e4]], np.float32)
    wrong = np.array([[0.0, 1.0], [1.0, 0.0]], np.float32)
    found = forward_cross_entropy(logits, wrong, transition)
    np.testing.assert_allclose(found, [-math.log(0.01), -math.log(0.02)], rtol=1e-6)
