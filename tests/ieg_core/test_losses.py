# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from keras import ops

from ieg_core.losses import smooth_labels, softmax_cross_entropy


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
