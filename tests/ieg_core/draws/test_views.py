# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path

import numpy as np
import pytest

from ieg_core.draws import operations, policies
from ieg_core.draws.generator import generator
from ieg_core.draws.operations import Operation
from ieg_core.draws.views import strong_view_draws
from ieg_core.errors import UserError
from ieg_core.experiment.config import AugmentationConfig
from ieg_core.experiment.dataset_spec import parse
from ieg_core.experiment.overrides import override
from ieg_core.recipes import build

POLICIES = (*policies.TABLES, "randaugment", "digits")
PUBLISHED = Path(__file__).parents[4] / "shared" / "data" / "autoaugment_policies.json"
MANY = 20_000


def _draw(policy="autoaugment", shape=(32, 32, 3), batch=MANY, seed=0, **changes):
    config = AugmentationConfig(strong=policy, **changes)
    return strong_view_draws(generator(seed, "strong view"), batch, config, shape)


def _within(share, expected, count):
    """Whether a share lies within five standard deviations of a binomial one."""
    return abs(share - expected) <= 5 * np.sqrt(expected * (1 - expected) / count)


@pytest.mark.parametrize("policy", POLICIES)
def test_draws_are_a_function_of_the_stream_with_fixed_shapes(policy):
    drawn, again, other = (_draw(policy, batch=50, seed=seed) for seed in (0, 0, 1))
    stages = 1 if policy == "digits" else 2
    assert {name: array.shape for name, array in drawn.items()} == {
        "operation": (50, stages),
        "level": (50, stages),
        "affine": (50, stages + 1, 6),
        "erase": (50, stages + 1, 4),
    }
    for name, array in drawn.items():
        assert array.dtype == np.int32
        np.testing.assert_array_equal(array, again[name])
    assert any((drawn[name] != other[name]).any() for name in drawn)


def test_draws_do_not_change_between_versions():
    # A change of these numbers silently changes every experiment.
    drawn = _draw(batch=3)
    np.testing.assert_array_equal(drawn["operation"], [[0, 2], [12, 14], [0, 2]])
    np.testing.assert_array_equal(
        drawn["erase"][:, -1], [[4, 20, 2, 18], [14, 30, 17, 33], [-8, 8, 23, 39]]
    )


@pytest.mark.parametrize(
    ("policy", "table"),
    policies.TABLES.items(),
)
def test_autoaugment_applies_sub_policies_with_their_probabilities(policy, table):
    drawn = _draw(policy, shape=(64, 64, 3))
    expected = {}
    for (first, p, i), (second, q, j) in table:
        for pair, share in (
            ((first, i, second, j), p * q),
            ((first, i, Operation.IDENTITY, 0), p * (1 - q)),
            ((Operation.IDENTITY, 0, second, j), (1 - p) * q),
            ((Operation.IDENTITY, 0, Operation.IDENTITY, 0), (1 - p) * (1 - q)),
        ):
            expected[pair] = expected.get(pair, 0) + share / len(table)
    rows = np.stack([drawn["operation"], drawn["level"]], axis=-1).reshape(MANY, 4)
    kinds, counts = np.unique(rows, axis=0, return_counts=True)
    seen = {tuple(kind): count / MANY for kind, count in zip(kinds.tolist(), counts, strict=True)}
    assert seen.keys() <= {pair for pair, share in expected.items() if share > 0}
    for pair, share in expected.items():
        assert _within(seen.get(pair, 0), share, MANY), pair


def test_randaugment_draws_operations_and_levels_evenly():
    drawn = _draw("randaugment")
    applied = drawn["level"] > 0
    assert _within(applied.mean(), 0.5, applied.size)
    assert _within((applied[:, 0] & applied[:, 1]).mean(), 0.25, MANY)
    assert len(policies.RANDAUGMENT) == 14
    for operation in policies.RANDAUGMENT:
        share = (drawn["operation"][applied] == operation).mean()
        assert _within(share, 1 / 14, applied.sum())
    missing = (Operation.INVERT, Operation.SOLARIZE_ADD, Operation.CUTOUT)
    assert not np.isin(drawn["operation"], missing).any()
    for level in range(1, 10):
        assert _within((drawn["level"][applied] == level).mean(), 1 / 9, applied.sum())
    assert (drawn["operation"][~applied] == Operation.IDENTITY).all()


@pytest.mark.parametrize("policy", POLICIES)
def test_only_possible_operations_are_drawn(policy):
    drawn = set(_draw(policy)["operation"].flat)
    assert drawn == policies.possible_operations(policy)


def test_geometric_operations_go_either_way_and_the_others_stay():
    drawn = _draw("randaugment")
    maps = operations.affine_maps(32, 32)
    operation, level, affine = drawn["operation"], drawn["level"], drawn["affine"][:, :2]
    forth, back = (maps[operation, level, way] for way in (0, 1))
    is_forth, is_back = ((affine == way).all(axis=-1) for way in (forth, back))
    assert (is_forth | is_back).all()
    moved = is_forth != is_back
    shifts = (Operation.TRANSLATE_X, Operation.TRANSLATE_Y, Operation.ROTATE)
    sheared = (Operation.SHEAR_X, Operation.SHEAR_Y)
    np.testing.assert_array_equal(moved, np.isin(operation, [*shifts, *sheared]))
    assert _within(is_forth[moved].mean(), 0.5, moved.sum())


def test_affine_maps_by_hand():
    one = 65536
    maps = operations.affine_maps(32, 32)
    half = one // 2
    # Half a pixel from the corner to the middle, then ten pixels.
    still = [one, 0, half, 0, one, half]
    np.testing.assert_array_equal(maps[Operation.IDENTITY, 3, 1], still)
    np.testing.assert_array_equal(
        maps[Operation.TRANSLATE_X, 10, 0], [one, 0, half + 10 * one, 0, one, half]
    )
    np.testing.assert_array_equal(
        maps[Operation.TRANSLATE_Y, 10, 1], [one, 0, half, 0, one, half - 10 * one]
    )
    # 0.3·65536 = 19660.8 and half of it; both rounded.
    np.testing.assert_array_equal(
        maps[Operation.SHEAR_X, 10, 0], [one, 19661, half + 9830, 0, one, half]
    )
    # cos 30° = 0.8660, sin 30° = ½; the middle of the image stays.
    a, b, c, d, e, f = maps[Operation.ROTATE, 10, 0]
    np.testing.assert_array_equal([a, b, d, e], [56756, -half, half, 56756])
    assert abs(16 * a + 16 * b + c - (a + b) / 2 - 16 * one) <= 32
    assert abs(16 * d + 16 * e + f - (d + e) / 2 - 16 * one) <= 32


def test_cutout_blanks_squares_around_any_pixel():
    drawn = _draw()["erase"][:, -1]
    top, bottom, left, right = drawn.T
    assert set(bottom - top) == set(right - left) == {16}
    for first in (top, left):
        assert set(first) == set(range(-8, 24))
    assert not _draw(cutout=0)["erase"][:, -1].any()
    odd = _draw("digits", shape=(8, 8, 1), cutout=3)["erase"][:, -1]
    assert set(odd[:, 0]) == set(range(-1, 7))
    assert set(odd[:, 1] - odd[:, 0]) == {3}


def test_the_operation_cutout_grows_with_its_level():
    drawn = _draw("autoaugment")
    erase, wanted = drawn["erase"][:, :2], drawn["operation"] == Operation.CUTOUT
    assert not erase[~wanted].any()
    np.testing.assert_array_equal(
        erase[wanted][:, 1] - erase[wanted][:, 0], 2 * drawn["level"][wanted]
    )


def test_crops_and_mirrors_come_from_the_padding():
    crop = _draw(strong_pad=2)["affine"][:, -1]
    flip = crop[:, 0] < 0
    assert _within(flip.mean(), 0.5, MANY)
    # Mirrored, column 0 of the result is the last one of the crop: 31 + offset − pad.
    for columns, first in ((crop[~flip, 2], 0), (crop[flip, 2], 31)):
        assert set(columns // 65536 - first) == set(range(-2, 3))
    assert set(crop[:, 5] // 65536) == set(range(-2, 3))
    assert (_draw(flip=False)["affine"][:, -1, 0] == 65536).all()


def test_the_digits_policy_stays_in_its_bounds():
    drawn = _draw("digits", shape=(8, 8, 1), cutout=3)
    a, b, c, d, e, f = np.moveaxis(drawn["affine"][:, 0] / 65536, -1, 0)
    angle = np.arctan2(-d, a)
    shear = b * np.cos(angle) - e * np.sin(angle)
    for values, bound in ((np.degrees(angle), 20), (shear, 0.2)):
        assert -bound - 0.01 <= values.min() < -0.95 * bound
        assert 0.95 * bound < values.max() <= bound + 0.01
    np.testing.assert_allclose(a * e - b * d, 1, atol=1e-3)
    # The middle of the result comes from the middle less the translation, through the inverse map.
    x, y = a * 4 + b * 4 + c - (a + b) / 2 - 4, d * 4 + e * 4 + f - (d + e) / 2 - 4
    across, down = b * y - e * x, d * x - a * y
    for move in (down, across):
        assert -2.01 <= move.min() < -1.9
        assert 1.9 < move.max() <= 2.01
    assert (drawn["operation"] == Operation.FINE_BRIGHTNESS).all()
    assert set(drawn["level"].flat) == set(range(41))
    assert operations.fine_brightness_factor(0) == 0.6
    assert operations.fine_brightness_factor(40) == pytest.approx(1.4)


def test_cutout_must_leave_something():
    with pytest.raises(
        UserError, match=r"cutout=16 blanks whole images of 8×8 pixels: expected less"
    ):
        _draw("randaugment", shape=(8, 8, 1), batch=1)


def test_levels_by_hand():
    assert [operations.posterize_bits(level) for level in range(10)] == [
        4,
        4,
        4,
        3,
        3,
        2,
        2,
        2,
        1,
        1,
    ]
    assert [operations.solarize_threshold(level) for level in (0, 1, 9, 10)] == [256, 231, 26, 0]
    assert [operations.solarize_addition(level) for level in (3, 10)] == [33, 110]
    assert [operations.translation(level, 32) for level in (1, 9)] == [1, 9]
    assert operations.translation(10, 331, 150 / 331) == 150
    assert [operations.cutout_side(level, 32) for level in (3, 10)] == [6, 20]


def test_the_released_magnitudes_of_the_imagenet_policy():
    bits, threshold = operations.released_posterize_bits, operations.released_solarize_threshold
    assert [bits(level) for level in (2, 6)] == [0, 2]
    assert [threshold(level) for level in (2, 3, 4, 8, 10)] == [51, 76, 102, 204, 256]
    drawn = _draw("autoaugment_imagenet_released", shape=(224, 224, 3))
    moved = drawn["operation"] == Operation.TRANSLATE_Y
    assert set(drawn["level"][moved]) == {9}
    offset = drawn["affine"][:, :2][moved][:, 5]
    assert set(offset // 65536) == {225, -225}


@pytest.mark.skipif(not PUBLISHED.exists(), reason="the published table is not in ../shared/data")
def test_the_tables_are_the_published_ones():
    published = json.loads(PUBLISHED.read_text())
    for name, table in (("cifar10", policies.CIFAR10), ("imagenet", policies.IMAGENET)):
        ours = [
            [[s.operation.name.replace("_", ""), s.probability, s.level] for s in pair]
            for pair in table
        ]
        theirs = [[[kind.upper(), p, level] for kind, p, level in pair] for pair in published[name]]
        assert ours == theirs


def test_recipes_and_settings_choose_the_policy():
    digits = build.build_config(parse("digits"), "supervised")
    assert digits.augmentation == AugmentationConfig(
        pad=1, flip=False, strong="digits", strong_pad=0, cutout=3
    )
    cifar = build.build_config(parse("cifar10"), "supervised", recipe="cifar")
    assert (cifar.augmentation.strong, cifar.augmentation.cutout) == ("autoaugment", 16)
    changed = override(cifar, ["augmentation.strong=randaugment", "augmentation.cutout=8"])
    assert (changed.augmentation.strong, changed.augmentation.cutout) == ("randaugment", 8)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("strong=randaug", "unknown strong augmentation 'randaug': did you mean 'randaugment'"),
        ("strong_pad=65", "augmentation.strong_pad must be between 0 and 64 pixels, got 65"),
        ("cutout=-1", "augmentation.cutout must be at least 0 pixels, got -1"),
    ],
)
def test_wrong_settings_are_refused(setting, message):
    config = build.build_config(parse("digits"), "supervised")
    with pytest.raises(UserError, match=message):
        override(config, [f"augmentation.{setting}"])
