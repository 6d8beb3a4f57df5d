# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from keras import ops

from ieg_core.methods.mixup import Mixing, mix_batch, mix_blocks

# Two blocks of two images of one pixel; laid end to end the pixels are 1, 2, 10, 20.
IMAGES = [np.array([1.0, 2.0], "float32"), np.array([10.0, 20.0], "float32")]
LABELS = [np.array([[1, 0], [0, 1]], "float32"), np.array([[0.5, 0.5], [0.25, 0.75]], "float32")]


def _pixels(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1, 1, 1, 1)


def test_blocks_mix_across_each_other_by_hand():
    partners = np.array([[3, 0], [1, 2]], "int32")
    coefficients = np.array([[0.75, 0.5], [0.9, 1.0]], "float32")
    images, labels = mix_blocks(
        [_pixels(block) for block in IMAGES], LABELS, partners, coefficients, lambda rows: rows
    )
    # Example 0 of block 0 with the last of block 1: 3/4·1 + 1/4·20; example 1 with itself.
    np.testing.assert_allclose(np.ravel(images[0]), [5.75, 2.0], rtol=1e-6)
    # Example 0 of block 1 with the first of block 0: 1/2·10 + 1/2·1; example 1 stays what it is.
    np.testing.assert_allclose(np.ravel(images[1]), [5.5, 20.0], rtol=1e-6)
    np.testing.assert_allclose(labels[0], [[0.8125, 0.1875], [0.0, 1.0]], rtol=1e-6)
    np.testing.assert_allclose(labels[1], [[0.75, 0.25], [0.25, 0.75]], rtol=1e-6)


def test_a_partner_may_lie_on_another_replica():
    mixing = Mixing(
        np.array([[2], [0]], "int32"), np.array([[0.6], [0.8]], "float32"), probe_choice=None
    )

    def gather(rows):
        return ops.concatenate([rows, 100.0 + rows])  # the other replica's rows

    images, labels = mix_batch(_pixels(IMAGES[0]), LABELS[0], mixing, gather)
    # 0.6·1 + 0.4·101 and 0.8·2 + 0.2·1.
    np.testing.assert_allclose(np.ravel(images), [41.0, 1.8], rtol=1e-6)
    np.testing.assert_allclose(labels, [[41.0, 40.0], [0.2, 0.8]], rtol=1e-6)


def test_without_draws_there_is_no_mixing():
    with pytest.raises(TypeError, match="expected the draws for MixUp"):
        mix_batch(_pixels(IMAGES[0]), LABELS[0], None, lambda rows: rows)
