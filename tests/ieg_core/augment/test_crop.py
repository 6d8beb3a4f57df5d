# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from keras import ops

from ieg_core.augment import crop_and_flip, to_unit_range


def _crop(images: np.ndarray, y: list[int], x: list[int], flip: list[bool], pad: int) -> np.ndarray:
    return ops.convert_to_numpy(
        crop_and_flip(images, np.int32(y), np.int32(x), np.array(flip), pad)
    )


def test_crop_and_flip_by_hand() -> None:
    image = np.array([[1, 2], [3, 4]], np.uint8)[None, :, :, None]
    images = np.repeat(image, 5, axis=0)
    out = _crop(images, [1, 0, 2, 1, 0], [1, 1, 2, 1, 1], [False] * 3 + [True] * 2, pad=1)
    expected = [
        [[1, 2], [3, 4]],  # the middle: unchanged
        [[0, 0], [1, 2]],  # one row of padding above
        [[4, 0], [0, 0]],  # padding below and on the right
        [[2, 1], [4, 3]],  # mirrored
        [[0, 0], [2, 1]],  # cropped, then mirrored
    ]
    assert out.dtype == np.uint8
    np.testing.assert_array_equal(out[..., 0], expected)


@pytest.mark.parametrize("shape", [(32, 32, 3), (8, 8, 1), (5, 7, 2)])
def test_crop_and_flip_equals_numpy(shape: tuple[int, int, int]) -> None:
    rng, pad, batch = np.random.default_rng(0), 2, 30
    images = rng.integers(0, 256, (batch, *shape), dtype=np.uint8)
    y, x = rng.integers(0, 2 * pad + 1, (2, batch), dtype=np.int32)
    flip = rng.random(batch) < 0.5
    padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    expected = np.stack(
        [
            padded[i, y[i] : y[i] + shape[0], x[i] : x[i] + shape[1]][:, :: -1 if flip[i] else 1]
            for i in range(batch)
        ]
    )
    np.testing.assert_array_equal(_crop(images, list(y), list(x), list(flip), pad), expected)


def test_no_padding_no_flip_changes_nothing() -> None:
    images = np.arange(2 * 3 * 4 * 1, dtype=np.uint8).reshape(2, 3, 4, 1)
    np.testing.assert_array_equal(_crop(images, [0, 0], [0, 0], [False, False], 0), images)


def test_unit_range_by_hand() -> None:
    scaled = ops.convert_to_numpy(to_unit_range(np.array([0, 51, 255], np.uint8)))
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled, [-1.0, -0.6, 1.0], rtol=1e-6)
