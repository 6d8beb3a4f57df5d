# SPDX-License-Identifier: Apache-2.0
"""Every operation gives Pillow's bits."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from keras import ops
from PIL import Image, ImageOps

from ieg_core.augment import geometric, pointwise
from ieg_core.data.open import open_source
from ieg_core.draws import operations
from ieg_core.draws.operations import Operation
from tests.ieg_core.augment import pictures, pillow

GEOMETRIC = (
    Operation.SHEAR_X,
    Operation.SHEAR_Y,
    Operation.TRANSLATE_X,
    Operation.TRANSLATE_Y,
    Operation.ROTATE,
)
POINTWISE = tuple(op for op in Operation if op not in (*GEOMETRIC, Operation.CUTOUT))
UNPACK = Path(__file__).parents[3] / "shared" / "data" / "unpack_cifar.py"


def _levels(operation: Operation) -> list[int]:
    if operation == Operation.FINE_BRIGHTNESS:
        return list(range(41))
    # Pillow's posterize keeps one bit at least.
    return list(range(10 if operation == Operation.POSTERIZE else 11))


def _pointwise(images: np.ndarray, operation: np.ndarray, level: np.ndarray) -> np.ndarray:
    return ops.convert_to_numpy(pointwise.apply(images, np.int32(operation), np.int32(level)))


def _assert_as_pillow(images: np.ndarray, operation: Operation) -> None:
    levels = np.repeat(_levels(operation), len(images))
    tiled = np.tile(images, (len(levels) // len(images), 1, 1, 1))
    no_rectangle = np.zeros((len(levels), 4), np.int32)
    for way, sign in enumerate((1, -1)):
        if operation in GEOMETRIC:
            maps = operations.affine_maps(*images.shape[1:3])[operation, levels, way]
            actual = ops.convert_to_numpy(geometric.warp(tiled, maps, no_rectangle))
        else:
            actual = _pointwise(tiled, np.full_like(levels, operation), levels)
        expected = [
            pillow.operate(image, operation, int(level), sign)
            for image, level in zip(tiled, levels, strict=True)
        ]
        assert actual.dtype == np.uint8
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("operation", [*POINTWISE, *GEOMETRIC])
@pytest.mark.parametrize("kind", ["color", "gray"])
def test_operations_equal_pillow(operation: Operation, kind: str) -> None:
    _assert_as_pillow(getattr(pictures, kind)(), operation)


@pytest.mark.parametrize("operation", [Operation.EQUALIZE, Operation.ROTATE, Operation.SHARPNESS])
def test_large_images_equal_pillow(operation: Operation) -> None:
    _assert_as_pillow(
        np.stack([photo[:224, 99 : 99 + 320] for photo in pictures.photographs()]), operation
    )


def test_a_batch_mixes_operations() -> None:
    images = np.repeat(pictures.color()[:2], len(POINTWISE), axis=0)
    chosen = np.tile(POINTWISE, 2)
    actual = _pointwise(images, chosen, np.full(len(images), 3))
    for result, image, operation in zip(actual, images, chosen, strict=True):
        np.testing.assert_array_equal(result, pillow.operate(image, Operation(operation), 3))


def test_autocontrast_equals_pillow_from_any_darkest_to_any_brightest_level() -> None:
    """Also where Pillow's float64 falls below a whole number, as for 255·(42 − 0) / 42."""
    rng = np.random.default_rng(0)
    low, high = np.sort(rng.integers(0, 256, (2, 4000)), axis=0)
    ramp = np.arange(256).reshape(1, 16, 16, 1)
    images = np.clip(ramp, *(bound[:, None, None, None] for bound in (low, high))).astype(np.uint8)
    kinds = np.full(len(images), Operation.AUTO_CONTRAST)
    actual = _pointwise(images, kinds, np.zeros(len(images)))
    expected = [
        np.asarray(ImageOps.autocontrast(Image.fromarray(image[..., 0]))) for image in images
    ]
    np.testing.assert_array_equal(actual[..., 0], expected)
    exact = (
        (images[..., 0].astype(int) - low[:, None, None])
        * 255
        // np.maximum(high - low, 1)[:, None, None]
    )
    assert (np.stack(expected) < np.where((high > low)[:, None, None], exact, 0)).any()


def test_histograms_by_hand() -> None:
    image = np.uint8([[0, 17, 255], [17, 16, 1]])[None, :, :, None]
    counts = ops.convert_to_numpy(pointwise.histograms(np.concatenate([image, 255 - image], -1)))
    expected = np.zeros((1, 2, 256))
    expected[0, 0, [0, 1, 16, 17, 255]] = [1, 1, 1, 2, 1]
    expected[0, 1] = expected[0, 0, ::-1]
    np.testing.assert_array_equal(counts, expected)


def test_smooth_by_hand() -> None:
    picture = np.zeros((1, 4, 4, 1), np.int32)
    picture[0, 1, 1] = 26
    smoothed = ops.convert_to_numpy(pointwise.smooth(picture))[0, :, :, 0]
    # 26·5/13 = 10 at the center, 26/13 = 2 around it; the edge is copied.
    np.testing.assert_array_equal(smoothed, [[0] * 4, [0, 10, 2, 0], [0, 2, 2, 0], [0] * 4])


def test_what_is_impossible_is_not_computed_and_changes_nothing() -> None:
    images = pictures.color()
    kinds = np.resize(np.int32([Operation.IDENTITY, Operation.SOLARIZE]), len(images))
    levels = np.full_like(kinds, 5)
    narrow = pointwise.apply(images, kinds, levels, {Operation.IDENTITY, Operation.SOLARIZE})
    np.testing.assert_array_equal(ops.convert_to_numpy(narrow), _pointwise(images, kinds, levels))


@pytest.mark.parametrize("shape", [(32, 32, 3), (8, 8, 1), (20, 31, 3)])
def test_any_affine_map_equals_pillow(shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (200, *shape), dtype=np.uint8)
    matrices = np.tile([1.0, 0, 0, 0, 1, 0], (200, 1)) + rng.normal(size=(200, 6)) * [
        *(0.4, 0.4, 4, 0.4, 0.4, 4)
    ]
    maps = operations.fixed_point(matrices)
    moved = ops.convert_to_numpy(geometric.warp(images, maps, np.zeros((200, 4), np.int32)))
    for result, image, matrix in zip(moved, images, matrices, strict=True):
        np.testing.assert_array_equal(result, pillow.move_pixels(image, tuple(matrix)))


def test_warp_by_hand() -> None:
    image = np.uint8([[1, 2, 3], [4, 5, 6], [7, 8, 9]])[None, :, :, None]
    right = operations.fixed_point([[1, 0, -1, 0, 1, 0]])
    moved = geometric.warp(image, right, np.int32([[1, 9, -1, 2]]))
    # One column to the right, then rows 1 and 2 lose the columns 0 and 1.
    expected = [[128, 1, 2], [128, 128, 5], [128, 128, 8]]
    np.testing.assert_array_equal(ops.convert_to_numpy(moved)[0, :, :, 0], expected)


@pytest.fixture(scope="module")
def cifar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[np.ndarray]:
    folder = tmp_path_factory.mktemp("cifar")
    subprocess.run([sys.executable, UNPACK, "--out", folder], check=True, capture_output=True)
    yield open_source("cifar10", folder).train_images(np.arange(0, 50_000, 1000))
    shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.skipif(not UNPACK.exists(), reason="the real CIFAR images are not in ../shared/data")
@pytest.mark.parametrize("operation", [*POINTWISE, *GEOMETRIC])
def test_operations_equal_pillow_on_cifar(operation: Operation, cifar: np.ndarray) -> None:
    _assert_as_pillow(cifar, operation)
