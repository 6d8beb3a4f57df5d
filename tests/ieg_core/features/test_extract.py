# SPDX-License-Identifier: Apache-2.0
import hashlib

import numpy as np
import pytest

from ieg_core.errors import UserError
from ieg_core.features import extract
from ieg_core.features.extract import extract_features, resize


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), np.uint8)


def compute(images, cache, **options):
    return extract_features(images, size=32, dtype="float32", cache=cache, **options)


@pytest.fixture(scope="module")
def features(images, tmp_path_factory):
    return compute(images, tmp_path_factory.mktemp("cache"))


@pytest.fixture
def never(monkeypatch):
    """Returns a function from which on nothing may be computed."""
    return lambda: monkeypatch.setattr(
        extract._View, "__call__", lambda *_: pytest.fail("computed again")
    )


def test_features_come_in_the_order_of_images_and_a_second_call_reads_them(
    images, features, tmp_path, never
):
    assert features.shape == (40, 1280)
    assert features.dtype == np.float16
    order = np.random.default_rng(1).permutation(40)
    np.testing.assert_array_equal(compute(images[order], tmp_path), features[order])
    never()
    np.testing.assert_array_equal(compute(images, tmp_path), features)


def test_only_new_images_are_computed(images, features, tmp_path):
    read = []

    def reader(ids):
        read.extend(ids.tolist())
        return images[ids]

    names = [hashlib.sha256(each.tobytes()).hexdigest() for each in images]
    compute(images[:35], tmp_path, digests=names[:35])
    found = compute(reader, tmp_path, count=40, digests=names)
    assert read == [35, 36, 37, 38, 39]
    np.testing.assert_allclose(found, features, atol=1e-3)


def test_an_interrupted_call_goes_on(images, features, tmp_path, monkeypatch):
    monkeypatch.setattr(extract, "_SHARD", 32)
    names = [hashlib.sha256(each.tobytes()).hexdigest() for each in images]

    def broken(ids):
        if ids[0] >= 32:
            raise KeyboardInterrupt
        return images[ids]

    with pytest.raises(KeyboardInterrupt):
        compute(broken, tmp_path, count=40, digests=names)
    told = []
    found = compute(images, tmp_path, digests=names, progress=lambda *at: told.append(at[:2]))
    assert told == [(40, 40)]
    np.testing.assert_allclose(found, features, atol=1e-3)


def test_a_damaged_cache_is_built_again(images, features, tmp_path):
    compute(images, tmp_path)
    (shard,) = tmp_path.rglob("*.safetensors")
    content = bytearray(shard.read_bytes())
    content[-100] ^= 1
    shard.write_bytes(content)
    np.testing.assert_array_equal(compute(images, tmp_path), features)
    assert shard.read_bytes() != content


@pytest.mark.parametrize(
    "options",
    [{"size": 40}, {"network": "efficientnet-lite2"}, {"mirrored": True}, {"dtype": "bfloat16"}],
)
def test_other_ways_to_look_are_other_features(images, tmp_path, features, options):
    arguments = {"size": 32, "dtype": "float32", "cache": tmp_path}
    extract_features(images[:2], **arguments)
    other = extract_features(images[:2], **arguments | options)
    assert np.abs(other - features[:2]).max() > 1e-2


def test_mirror_images_are_averaged(images, tmp_path):
    both = compute(images[:3], tmp_path, mirrored=True)
    mirror = compute(images[:3, :, ::-1], tmp_path, mirrored=True)
    np.testing.assert_allclose(both, mirror, atol=1e-2)
    plain, flipped = compute(images[:3], tmp_path), compute(images[:3, :, ::-1], tmp_path)
    mean = (plain.astype(np.float32) + flipped) / 2
    np.testing.assert_allclose(both, mean, atol=1e-2)


def test_bfloat16_says_nearly_the_same(images, tmp_path, features):
    found = extract_features(images, size=32, dtype="bfloat16", cache=tmp_path)
    assert np.corrcoef(found.ravel(), features.ravel())[0, 1] > 0.98


def test_progress_has_counts_and_rates(images, tmp_path):
    told = []
    compute(images, tmp_path, mirrored=True, progress=lambda *at: told.append(at))
    assert [at[:2] for at in told] == [(32, 80), (40, 80), (72, 80), (80, 80)]
    assert all(at[2] > 0 for at in told)


def test_resizing_keeps_flat_colors_and_gray_gets_three_channels():
    gray = np.full((2, 5, 9, 1), 77, np.uint8)
    np.testing.assert_array_equal(resize(gray, 32), np.full((2, 32, 32, 3), 77))
    same = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
    np.testing.assert_array_equal(resize(same, 32), same)


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (np.zeros((2, 8, 8, 3)), {}, "float64"),
        (np.zeros((2, 8, 8, 4), np.uint8), {}, "1 or 3 channels"),
        (np.zeros((0, 8, 8, 3), np.uint8), {}, "number of images must be at least 1"),
        (np.zeros((2, 8, 8, 3), np.uint8), {"digests": ["00"]}, "1 digests for 2 images"),
        (np.zeros((1, 8, 8, 3), np.uint8), {"digests": ["00"]}, "expected SHA-256"),
        (np.zeros((1, 8, 8, 3), np.uint8), {"network": "resnet"}, "unknown features .resnet"),
        (lambda ids: ids, {}, "pass count="),
    ],
)
def test_other_images_are_refused(tmp_path, images, options, message):
    with pytest.raises(UserError, match=message):
        compute(images, tmp_path, **options)
