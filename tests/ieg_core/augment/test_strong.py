# SPDX-License-Identifier: Apache-2.0
"""Strong views from fixed draws: the order of things, and the same bits on both backends."""

from pathlib import Path

import numpy as np
import pytest
from keras import ops

from ieg_core.augment import crop_and_flip, strong_view
from ieg_core.draws import operations
from ieg_core.draws.generator import generator
from ieg_core.draws.operations import Operation
from ieg_core.draws.views import strong_view_draws
from ieg_core.experiment.config import AugmentationConfig
from tests.backends import run_on_both
from tests.ieg_core.augment import pictures, pillow
from tests.ieg_core.augment.pillow import POLICIES


def _strong(images: np.ndarray, draws: dict[str, np.ndarray], policy: str) -> np.ndarray:
    config = AugmentationConfig(strong=policy)
    return ops.convert_to_numpy(strong_view(images, draws, config))


def _erase(pixels: np.ndarray, rectangle: np.ndarray) -> np.ndarray:
    top, bottom, left, right = np.maximum(rectangle, 0)
    erased = pixels.copy()
    erased[top:bottom, left:right] = 128
    return erased


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("kind", ["color", "gray"])
def test_strong_views_equal_pillow_one_by_one(policy: str, kind: str) -> None:
    images = np.repeat(getattr(pictures, kind)(), 10, axis=0)
    config = AugmentationConfig(strong=policy, cutout=16 if kind == "color" else 3)
    draws = strong_view_draws(generator(3, kind), len(images), config, images.shape[1:])
    expected = []
    for index, picture in enumerate(images):
        view = picture
        for stage, fixed in enumerate(draws["affine"][index]):
            if stage < draws["operation"].shape[1]:
                operation = Operation(draws["operation"][index, stage])
                if operation < Operation.SHEAR_X or operation > Operation.CUTOUT:
                    view = pillow.operate(view, operation, int(draws["level"][index, stage]))
            a, b, c, d, e, f = fixed / 65536
            view = pillow.move_pixels(view, (a, b, c - (a + b) / 2, d, e, f - (d + e) / 2))
            view = _erase(view, draws["erase"][index, stage])
        expected.append(view)
    np.testing.assert_array_equal(_strong(images, draws, policy), expected)


def test_a_strong_view_by_hand() -> None:
    image = np.uint8([[0, 10, 20], [30, 40, 50], [60, 70, 80]])[None, :, :, None]
    down = operations.fixed_point([1, 0, 0, 0, 1, -1])
    mirror = operations.fixed_point([-1, 0, 3, 0, 1, 0])
    draws = {
        "operation": np.int32([[Operation.INVERT, Operation.TRANSLATE_Y]]),
        "level": np.int32([[0, 3]]),
        "affine": np.stack([operations.fixed_point(operations.IDENTITY_MATRIX), down, mirror])[
            None
        ],
        "erase": np.int32([[[0] * 4, [0] * 4, [1, 2, 1, 9]]]),
    }
    # Inverted, moved one row down, mirrored, two pixels blanked.
    expected = [[128, 128, 128], [235, 128, 128], [205, 215, 225]]
    view = _strong(image, draws, "autoaugment")
    assert view.dtype == np.uint8
    np.testing.assert_array_equal(view[0, :, :, 0], expected)


def test_the_last_map_crops_and_mirrors_as_the_weak_view_does() -> None:
    images = pictures.color()
    config = AugmentationConfig(strong="digits", cutout=0)
    draws = strong_view_draws(generator(0, "view"), len(images), config, (32, 32, 3))
    draws["level"][:] = 20  # factor 0.6 + 0.02·20 = 1
    draws["affine"][:, 0] = operations.fixed_point(operations.IDENTITY_MATRIX)
    matrix = draws["affine"][:, 1]
    flip = matrix[:, 0] < 0
    assert set(flip) == {True, False}
    offset_x = 4 + matrix[:, 2] // 65536 - np.where(flip, 31, 0)
    offset_y = 4 + matrix[:, 5] // 65536
    weak, inside = (
        ops.convert_to_numpy(crop_and_flip(pixels, np.int32(offset_y), np.int32(offset_x), flip, 4))
        for pixels in (images, np.ones_like(images))
    )
    # The weak view's padding is black, the strong view's mid-gray.
    expected = np.where(inside == 1, weak, np.uint8(128))
    np.testing.assert_array_equal(_strong(images, draws, "digits"), expected)


def test_both_backends_give_the_same_bits() -> None:
    views = run_on_both(Path(__file__).with_name("strong_on_backend.py"))
    tensorflow, jax = views["tensorflow"], views["jax"]
    assert set(tensorflow) == set(POLICIES)
    for policy, view in tensorflow.items():
        np.testing.assert_array_equal(jax[policy], view)
