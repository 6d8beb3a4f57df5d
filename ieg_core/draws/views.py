# SPDX-License-Identifier: Apache-2.0
"""Draws for strong views, made on the host: operation, level and position for each image."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ieg_core.draws import operations, policies
from ieg_core.draws.generator import crop_flip
from ieg_core.draws.operations import Operation
from ieg_core.errors import UserError
from ieg_core.experiment.config import AugmentationConfig

Ints = NDArray[np.int32]
_EMPTY = (0, 0, 0, 0)


@dataclass(frozen=True)
class _Choice:
    """A policy's choice: operations and levels, int32 [B, S]; IDENTITY where none is applied."""

    operation: Ints
    level: Ints


def strong_view_draws(
    rng: np.random.Generator,
    batch_size: int,
    config: AugmentationConfig,
    image_shape: tuple[int, int, int],
) -> dict[str, Ints]:
    """Draws the strong views of a batch.

    The policies of AutoAugment draw one sub-policy per image, and apply each of its two operations
    with the operation's probability. `randaugment` draws two of 14 operations per image, the
    identity among them, each with a level from 1 to 9, and applies each with probability ½. In
    `autoaugment_imagenet_released`, translations are up to 250 pixels. Geometric operations
    take either direction with probability ½. `digits` scales brightness by a factor from 0.6 to 1.4
    in steps of 0.02, then applies one affine map about the center, drawn uniformly: it rotates by
    at most 20°, shears rows by at most 0.2 and translates by at most 2 pixels in each direction.

    Then each image is padded, cropped, mirrored if drawn, and loses a square (Cutout) that is
    centered on any pixel, so part of it may be outside the image.

    Args:
      rng: The stream to draw from.
      batch_size: B.
      config: Policy, padding, mirroring, Cutout.
      image_shape: (H, W, ch) of the raw images.

    Returns:
      With S operations per image: operation (`Operation`) and level, int32 [B, S]; affine, int32
      [B, S + 1, 6], the `operations.fixed_point` map after each operation, then that of the crop;
      erase, int32 [B, S + 1, 4], the rectangle (top, bottom, left, right) blanked after each map,
      empty if all 0.

    Raises:
      UserError: When Cutout would blank whole images.

    Reference: AutoAugment, arXiv 1805.09501; RandAugment, arXiv 1909.13719; Cutout, arXiv
    1708.04552.
    """
    height, width, _ = image_shape
    if config.cutout >= min(height, width):
        raise UserError(
            f"augmentation.cutout={config.cutout} blanks whole images of {height}×{width} pixels: "
            f"expected less than {min(height, width)}, such as {min(height, width) // 2}"
        )
    if config.strong == "digits":
        choice, affine = _draw_digits(rng, batch_size, height, width)
        erase = np.zeros((batch_size, 1, 4), np.int32)
    else:
        choice = (
            _draw_randaugment(rng, batch_size)
            if config.strong == "randaugment"
            else _draw_autoaugment(rng, batch_size, config.strong)
        )
        affine = _draw_maps(rng, choice, config.strong, height, width)
        erase = _draw_erased(rng, choice, height, width)
    crop = crop_flip(rng, batch_size, config.strong_pad, config.flip)
    crop_map = _crop_map(crop["offset_y"], crop["offset_x"], crop["flip"], config.strong_pad, width)
    cutout = _squares(rng, np.full(batch_size, config.cutout), height, width)
    return {
        "operation": choice.operation,
        "level": choice.level,
        "affine": np.concatenate([affine, crop_map[:, None]], axis=1),
        "erase": np.concatenate([erase, cutout[:, None]], axis=1),
    }


def _draw_autoaugment(rng: np.random.Generator, batch_size: int, name: str) -> _Choice:
    table = policies.TABLES[name]
    operation, probability, level = np.moveaxis(np.array(table, np.float64), -1, 0)
    drawn = rng.integers(0, len(table), batch_size)
    applied = rng.random((batch_size, operation.shape[1])) < probability[drawn]
    return _chosen(operation[drawn], level[drawn], applied)


def _draw_randaugment(rng: np.random.Generator, batch_size: int) -> _Choice:
    shape = (batch_size, 2)
    operation = rng.choice(np.array(policies.RANDAUGMENT), shape)
    level = rng.integers(1, operations.MAX_LEVEL, shape)
    return _chosen(operation, level, rng.random(shape) < 0.5)


def _chosen(operation: NDArray, level: NDArray, applied: NDArray[np.bool_]) -> _Choice:
    return _Choice(
        np.where(applied, operation, Operation.IDENTITY).astype(np.int32),
        np.where(applied, level, 0).astype(np.int32),
    )


def _draw_digits(
    rng: np.random.Generator, batch_size: int, height: int, width: int
) -> tuple[_Choice, Ints]:
    angle = np.radians(rng.uniform(-20.0, 20.0, batch_size))
    shear = rng.uniform(-0.2, 0.2, batch_size)
    move_y, move_x = rng.uniform(-2.0, 2.0, (2, batch_size))
    level = rng.integers(0, operations.NUM_FINE_LEVELS, (batch_size, 1), dtype=np.int32)
    # From result to image: undo the translation, then rotation · shear, all about the center.
    a, b = np.cos(angle), np.cos(angle) * shear + np.sin(angle)
    d, e = -np.sin(angle), np.cos(angle) - np.sin(angle) * shear
    x, y = -width / 2 - move_x, -height / 2 - move_y
    matrices = np.stack(
        [a, b, a * x + b * y + width / 2, d, e, d * x + e * y + height / 2], axis=-1
    )
    operation = np.full_like(level, Operation.FINE_BRIGHTNESS)
    return _Choice(operation, level), operations.fixed_point(matrices)[:, None]


def _draw_maps(
    rng: np.random.Generator, choice: _Choice, policy: str, height: int, width: int
) -> Ints:
    maps = operations.affine_maps(height, width, _largest_shift(policy, height))
    return maps[choice.operation, choice.level, rng.integers(0, 2, choice.operation.shape)]


def _largest_shift(policy: str, height: int) -> float:
    """Returns the translation at MAX_LEVEL, as a fraction of the side of a square image."""
    # AutoAugment translates by up to 10 of CIFAR's 32 pixels and 150 of ImageNet's 331.
    shifts = {"autoaugment_imagenet": 150 / 331, "autoaugment_imagenet_released": 250 / height}
    return shifts.get(policy, 10 / 32)


def _crop_map(offset_y: NDArray, offset_x: NDArray, flip: NDArray, pad: int, width: int) -> Ints:
    matrices = np.tile(operations.IDENTITY_MATRIX, (len(flip), 1))
    matrices[:, 0] = np.where(flip, -1.0, 1.0)
    matrices[:, 2] = np.where(flip, width, 0) + offset_x - pad
    matrices[:, 5] = offset_y - pad
    return operations.fixed_point(matrices)


def _draw_erased(rng: np.random.Generator, choice: _Choice, height: int, width: int) -> Ints:
    sides = np.array(
        [operations.cutout_side(level, min(height, width)) for level in range(11)], np.int32
    )
    side = np.where(choice.operation == Operation.CUTOUT, sides[choice.level], 0)
    return _squares(rng, side, height, width)


def _squares(rng: np.random.Generator, side: NDArray, height: int, width: int) -> Ints:
    """Draws squares centered on any pixel: (top, bottom, left, right), int32 [..., 4]."""
    top = rng.integers(0, height, side.shape) - side // 2
    left = rng.integers(0, width, side.shape) - side // 2
    corners = np.stack([top, top + side, left, left + side], axis=-1)
    return np.where(side[..., None] > 0, corners, _EMPTY).astype(np.int32)
