# SPDX-License-Identifier: Apache-2.0
"""Networks by name; a stand-in takes the place of onnxruntime, which setup does not install."""

import hashlib
import sys
import zipfile
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from ieg_core.errors import UserError
from ieg_core.features import network
from ieg_core.features.extract import compute_features, extract_features
from ieg_core.features.network import find_network, largest_side
from ieg_core.host import archives

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def nothing_loaded():
    for each in (network._load, network._session, network._application):
        each.cache_clear()


@pytest.fixture(scope="module")
def keras_file(tmp_path_factory):
    """A network that returns twice the mean color of images of 8 pixels, as a map and a vector."""
    import keras

    images = keras.Input((8, 8, 3))
    doubled = keras.layers.Rescaling(2.0)(images)
    mean = keras.layers.GlobalAveragePooling2D()(doubled)
    path = tmp_path_factory.mktemp("keras") / "mine.keras"
    keras.Model(images, [doubled, mean]).save(path)
    return path


def test_a_keras_file_is_named_by_content_and_gets_pixels_of_its_size(keras_file, tmp_path):
    found = find_network(str(keras_file))
    assert found.size == 8
    assert found.sha256 == hashlib.sha256(keras_file.read_bytes()).hexdigest()
    images = np.repeat(RNG.integers(0, 256, (3, 1, 1, 3), np.uint8), 16, 1).repeat(16, 2)
    expected = 2.0 * images[:, 0, 0]
    np.testing.assert_allclose(compute_features(found, images), expected, rtol=1e-3)
    features = extract_features(images, network=str(keras_file), size=32, cache=tmp_path)
    np.testing.assert_allclose(features, expected, rtol=1e-3)
    (folder,) = (tmp_path / "features").iterdir()
    assert folder.name == f"mine.keras-8-float32-plain-{found.sha256[:12]}-v1"


def test_files_that_are_no_networks_are_refused(tmp_path):
    path = tmp_path / "broken.keras"
    with pytest.raises(UserError, match=r"cannot read the features .*broken\.keras"):
        find_network(str(path))
    path.write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"cannot compute features .*not a zip file"):
        find_network(str(path))
    with pytest.raises(UserError, match="expected one network that computes features"):
        find_network("efficientnet-lite0+features.npy")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"batch_shape": 3}', "its input is 3"),
        ('{"batch_shape": [null, "8", "8", 3]}', "its input is"),
        (" " * 2000, r"unpacks config\.json to 2,000 bytes"),
    ],
)
def test_an_odd_configuration_of_a_keras_file_is_one_line(tmp_path, monkeypatch, config, message):
    monkeypatch.setattr(archives, "_MOST_TEXT", 1000 if config.isspace() else 1 << 20)
    path = tmp_path / "odd.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", config)
    with pytest.raises(UserError, match=message):
        find_network(str(path))
    content = bytearray(path.read_bytes())
    content[45] ^= 255  # inside the compressed data
    path.write_bytes(content)
    with pytest.raises(UserError):
        find_network(str(path))


@pytest.mark.parametrize("shape", [(8, 10, 3), (8, 8, 4), (20,)])
def test_a_network_of_other_inputs_is_refused(shape, tmp_path):
    import keras

    path = str(tmp_path / "other.keras")
    images = keras.Input(shape)
    keras.Model(images, keras.layers.Rescaling(2.0)(images)).save(path)
    with pytest.raises(UserError, match=r"its input is \(None, .*square images with 3 channels"):
        find_network(path)


def test_a_network_of_keras_is_preprocessed_as_it_wants_to_be(monkeypatch):
    import keras

    def build(include_top, weights, pooling):
        assert (include_top, weights, pooling) == (False, "imagenet", "avg")
        images = keras.Input((None, None, 3))
        return keras.Model(images, keras.layers.GlobalAveragePooling2D()(images))

    build.__module__ = "keras.src.applications.mobilenet"  # scales pixels to [−1, 1]
    monkeypatch.setattr(keras.applications, "MobileNet", build)
    found = find_network("keras.applications:MobileNet", 32)
    images = np.full((2, 32, 32, 3), (0, 255, 51), np.uint8)
    expected = [[-1, 1, 51 / 127.5 - 1]] * 2
    np.testing.assert_allclose(compute_features(found, images), expected, atol=1e-3)
    with pytest.raises(UserError, match=r"keras.applications 'MobilNet': did you mean .*MobileNet"):
        find_network("keras.applications:MobilNet")


def test_weights_that_keras_cannot_download_are_one_line(monkeypatch):
    import keras

    def build(**options):
        raise OSError("URL fetch failure\non https://storage")

    monkeypatch.setattr(keras.applications, "MobileNet", build)
    with pytest.raises(UserError, match=r"weights of keras.applications:MobileNet .*URL fetch"):
        find_network("keras.applications:MobileNet")


def runtime_of(shape, output):
    """Returns a stand-in for onnxruntime, whose session's input has a shape."""

    class Session:
        def __init__(self, path, options, providers):
            self.received = None

        def get_inputs(self):
            return [SimpleNamespace(name="pixels", shape=shape)]

        def run(self, names, inputs):
            self.received = inputs["pixels"]
            return [output(self.received)]

    runtime = ModuleType("onnxruntime")
    runtime.SessionOptions = SimpleNamespace
    runtime.get_available_providers = lambda: ["CPUExecutionProvider"]
    runtime.InferenceSession = Session
    return runtime


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (["n", 3, 8, 8], [(0 - 0.485) / 0.229, (1 - 0.456) / 0.224, (0.2 - 0.406) / 0.225]),
        (["n", 8, 8, 3], [0, 255, 51]),
    ],
)
def test_onnx_gets_what_the_order_of_its_channels_says(shape, expected, monkeypatch, tmp_path):
    runtime = runtime_of(shape, lambda pixels: pixels)
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    (tmp_path / "mine.onnx").write_bytes(b"weights")
    found = find_network(str(tmp_path / "mine.onnx"))
    assert found.size == 8
    images = np.full((2, 8, 8, 3), (0, 255, 51), np.uint8)
    np.testing.assert_allclose(compute_features(found, images), [expected] * 2, rtol=2e-3)


@pytest.mark.parametrize("size", [1, 5])
def test_onnx_with_a_fixed_batch_gets_batches_of_that_size(size, monkeypatch, tmp_path):
    def mean(pixels):
        if len(pixels) != size:
            raise RuntimeError(f"Got: {len(pixels)} Expected: {size}")
        return pixels.mean((1, 2))

    monkeypatch.setitem(sys.modules, "onnxruntime", runtime_of([size, 8, 8, 3], mean))
    (tmp_path / "mine.onnx").write_bytes(b"weights")
    images = RNG.integers(0, 256, (7, 8, 8, 3)).astype(np.uint8)
    found = compute_features(find_network(str(tmp_path / "mine.onnx")), images)
    np.testing.assert_allclose(found, images.mean((1, 2)), rtol=2e-3)


def test_tokens_are_averaged(monkeypatch, tmp_path):
    tokens = RNG.normal(size=(32, 5, 4)).astype(np.float32)
    runtime = runtime_of(["n", 3, "h", "w"], lambda pixels: tokens)
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    (tmp_path / "mine.onnx").write_bytes(b"weights")
    found = find_network(str(tmp_path / "mine.onnx"), 32)
    features = compute_features(found, np.zeros((2, 32, 32, 3), np.uint8))
    np.testing.assert_allclose(features, tokens[:2].mean(1), atol=1e-3)


def test_a_network_that_fails_is_one_line(monkeypatch, tmp_path):
    def fail(pixels):
        raise RuntimeError("Got: 32\n Expected: 1")

    monkeypatch.setitem(sys.modules, "onnxruntime", runtime_of(["n", 3, 8, 8], fail))
    (tmp_path / "mine.onnx").write_bytes(b"weights")
    found = find_network(str(tmp_path / "mine.onnx"))
    with pytest.raises(
        UserError, match=r"mine\.onnx cannot compute features \(Got: 32 Expected: 1"
    ):
        compute_features(found, np.zeros((1, 8, 8, 3), np.uint8))


def test_without_onnxruntime_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    (tmp_path / "mine.onnx").write_bytes(b"weights")
    with pytest.raises(UserError, match=r"onnxruntime is not installed: pip .*ieg-core\[onnx\]"):
        find_network(str(tmp_path / "mine.onnx"))


def test_images_are_read_for_the_largest_network(keras_file):
    networks = [find_network("efficientnet-lite0"), find_network(str(keras_file))]
    assert largest_side(networks) == 160
    assert largest_side([]) == 160
