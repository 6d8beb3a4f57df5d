# SPDX-License-Identifier: Apache-2.0
import json
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from keras.ops import convert_to_numpy

from ieg_core.errors import UserError
from ieg_core.models import zoo

# TensorFlow's variables know nothing of NumPy 2's copy keyword.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

CIFAR = (32, 32, 3)
DIGITS = (8, 8, 1)
LARGE = (224, 224, 3)


def _filled(name: str, shape: tuple[int, int, int], seed: int = 0, **settings: str) -> keras.Model:
    model = zoo.build(name, 10, shape, **settings)
    for variable, value in zip(model.variables, zoo.initial_values(model, seed), strict=True):
        variable.assign(value)
    return model


def _images(shape: tuple[int, int, int], num: int = 6) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (num, *shape)).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "shape", "num_classes", "num_parameters"),
    [
        # Trainable parameters. The second is the 0.46 M of He et al. 2016, the last two those of
        # every library's ImageNet networks.
        pytest.param("resnet29", CIFAR, 10, 840_730, id="resnet29"),
        pytest.param("resnet32", CIFAR, 10, 464_154, id="resnet32"),
        pytest.param("wrn28-10", CIFAR, 10, 36_479_194, id="wrn28-10"),
        # As the authors of IEG and FSR released them: 36.22 M.
        pytest.param("wrn28-10-released", CIFAR, 10, 36_220_634, id="wrn28-10-released"),
        pytest.param("resnet32-released", CIFAR, 10, 464_154, id="resnet32-released"),
        pytest.param("resnet18", LARGE, 1000, 11_689_512, id="resnet18"),
        pytest.param("resnet50", LARGE, 1000, 25_557_032, id="resnet50"),
    ],
)
def test_published_sizes(
    name: str, shape: tuple[int, int, int], num_classes: int, num_parameters: int
) -> None:
    model = zoo.build(name, num_classes, shape)
    assert sum(int(np.prod(v.shape)) for v in model.trainable_variables) == num_parameters


def test_size_of_preact8_by_hand() -> None:
    model = zoo.build("preact8", 10, DIGITS)
    stem = 9 * 1 * 32
    stage1 = 2 * 9 * 32 * 32 + 2 * (32 + 32)
    stage2 = 9 * 32 * 64 + 9 * 64 * 64 + 32 * 64 + 2 * (32 + 64)
    stage3 = 9 * 64 * 128 + 9 * 128 * 128 + 64 * 128 + 2 * (64 + 128)
    head = 2 * 128 + 128 * 10 + 10
    counted = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    assert counted == stem + stage1 + stage2 + stage3 + head


@pytest.mark.parametrize(
    ("name", "shape", "num_features"),
    [
        ("resnet11", CIFAR, 256),
        ("resnet8", CIFAR, 64),
        ("preact8", DIGITS, 128),
        ("wrn10-2", (9, 6, 2), 128),
        ("resnet8", (9, 6, 2), 64),
        ("resnet18", (70, 64, 3), 512),
        ("resnet50", (64, 64, 3), 2048),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16", "float64"])
def test_logits_and_features(
    name: str, shape: tuple[int, int, int], num_features: int, dtype: str
) -> None:
    model = _filled(name, shape, dtype=dtype)
    before = [convert_to_numpy(v) for v in model.non_trainable_variables]
    (logits, features), after = model.stateless_call(
        model.trainable_variables, model.non_trainable_variables, _images(shape), training=True
    )
    expected = "float64" if dtype == "float64" else "float32"
    for tensor, width in ((logits, 10), (features, num_features)):
        assert tuple(tensor.shape) == (6, width)
        assert keras.backend.standardize_dtype(tensor.dtype) == expected
        assert np.isfinite(convert_to_numpy(tensor)).all()
    assert convert_to_numpy(logits).std() > 0.05
    dense = model.get_layer("logits")
    np.testing.assert_allclose(
        convert_to_numpy(features) @ convert_to_numpy(dense.kernel) + convert_to_numpy(dense.bias),
        logits,
        atol=1e-4,
    )
    # The statistics move in what is returned and nowhere else.
    assert all(
        np.abs(convert_to_numpy(new) - old).max() > 0
        for new, old in zip(after, before, strict=True)
    )
    for variable, old in zip(model.non_trainable_variables, before, strict=True):
        np.testing.assert_array_equal(convert_to_numpy(variable), old)


def test_moving_statistics_by_hand() -> None:
    layer = zoo.BatchNormalization()
    x = np.array([1.0, 3.0, 5.0, 7.0], np.float32).reshape(2, 2, 1, 1)
    y = layer(x, training=True)
    # Mean 4, biased variance (9 + 1 + 1 + 9) / 4 = 5.
    np.testing.assert_allclose(np.ravel(y), np.array([-3, -1, 1, 3]) / np.sqrt(5 + 1e-5), rtol=1e-5)
    np.testing.assert_allclose(convert_to_numpy(layer.moving_mean), [0.1 * 4], rtol=1e-6)
    np.testing.assert_allclose(convert_to_numpy(layer.moving_variance), [0.9 + 0.1 * 5], rtol=1e-6)
    y = layer(x, training=False)
    np.testing.assert_allclose(
        np.ravel(y), (np.ravel(x) - 0.4) / np.sqrt(1.4 + 1e-5), rtol=1e-5, atol=1e-6
    )


def test_statistics_keep_float32_under_a_bfloat16_policy() -> None:
    layer = zoo.BatchNormalization(dtype="mixed_bfloat16")
    rng = np.random.default_rng(0)
    x = keras.ops.cast(rng.normal(3.0, 2.0, (8, 8, 8, 2)), "bfloat16")
    y = layer(x, training=True)
    assert keras.backend.standardize_dtype(y.dtype) == "bfloat16"
    rounded = convert_to_numpy(keras.ops.cast(x, "float32"))
    # Moments rounded to bfloat16 would be wrong in the third digit.
    mean, variance = rounded.mean((0, 1, 2)), rounded.var((0, 1, 2))
    np.testing.assert_allclose(convert_to_numpy(layer.moving_mean), 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(
        convert_to_numpy(layer.moving_variance), 0.9 + 0.1 * variance, rtol=1e-5
    )
    y = layer(x, training=False)
    assert keras.backend.standardize_dtype(y.dtype) == "bfloat16"


def test_a_prediction_does_not_depend_on_the_batch_in_inference() -> None:
    model = _filled("preact8", DIGITS)
    images = _images(DIGITS)
    whole = model(images, training=False)[0]
    alone = model(images[:1], training=False)[0]
    np.testing.assert_allclose(whole[:1], alone, rtol=1e-4, atol=1e-5)


def test_initial_values_depend_on_seed_and_variable_alone() -> None:
    model = zoo.build("wrn16-2", 10, CIFAR)
    first, again, other = (zoo.initial_values(model, seed) for seed in (0, 0, 1))
    kernels = [i for i, v in enumerate(model.variables) if v.name == "kernel"]
    for i, variable in enumerate(model.variables):
        assert first[i].shape == tuple(variable.shape)
        assert first[i].dtype == np.float32
        np.testing.assert_array_equal(first[i], again[i])
        assert (i in kernels) == bool((first[i] != other[i]).any())
    # 3x3 convolution 128 -> 128: variance 2/(9·128) by fan-out; dense 128 -> 10: 2/138.
    wide = max((first[i] for i in kernels[:-1]), key=np.size)
    assert wide.shape == (3, 3, 128, 128)
    assert wide.var() == pytest.approx(2 / (9 * 128), rel=0.02)
    assert first[kernels[-1]].var() == pytest.approx(2 / 138, rel=0.2)
    narrow = zoo.build("resnet8", 10, CIFAR)
    values = dict(
        zip((v.path for v in narrow.variables), zoo.initial_values(narrow, 0), strict=True)
    )
    # 3x3 convolution 32 -> 64: variance 2/(9·32) by fan-in.
    assert values["stage3_block1_conv1/kernel"].var() == pytest.approx(2 / (9 * 32), rel=0.03)


@pytest.mark.parametrize(
    ("name", "shape"), [("resnet8", CIFAR), ("resnet11", CIFAR), ("preact8", DIGITS)]
)
def test_the_exported_model_is_the_trained_one_without_this_package(
    name: str, shape: tuple[int, int, int], tmp_path: Path
) -> None:
    model = _filled(name, shape, seed=3)
    rng = np.random.default_rng(1)
    for variable in model.non_trainable_variables:
        variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    stock = zoo.stock_model(name, 10, shape)
    assert [v.path for v in stock.variables] == [v.path for v in model.variables]
    stock.set_weights(model.get_weights())
    stock.save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        config = archive.read("config.json").decode()
    assert "ieg_core" not in config
    assert json.loads(config)["config"]["name"] == name
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    images = _images(shape)
    np.testing.assert_allclose(
        loaded(images, training=False), model(images, training=False)[0], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        (("resnet30", 10, CIFAR), {}, "unknown network 'resnet30'"),
        (("efficientnet-lite0", 10, CIFAR), {}, "use FEATURES=efficientnet-lite0"),
        (("preact8", 1, DIGITS), {}, "at least 2 classes"),
        (("preact8", 10, (8, 8)), {}, "image shape"),
        (("preact8", 10, (8, 0, 1)), {}, "image shape"),
        (("preact8", 10, DIGITS), {"dtype": "float16"}, "received dtype='float16': expected"),
        (("preact8", 10, DIGITS), {"batch_norm": "mkl"}, "received batch_norm='mkl': expected"),
    ],
)
def test_bad_requests(arguments: tuple, settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        zoo.build(*arguments, **settings)


def test_the_released_shortcut_averages_squares() -> None:
    x = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    layers = zoo.Layers("float32", "float32", zoo.BatchNormalization)
    images = keras.Input((4, 4, 1))
    both = [layers.pad_channels(images, 3, 2, f"pool{pool}", pool=pool) for pool in (1, 2)]
    kept, averaged = keras.Model(images, both)(x)
    np.testing.assert_array_equal(convert_to_numpy(kept)[0, :, :, 1], [[0, 2], [8, 10]])
    np.testing.assert_array_equal(
        convert_to_numpy(averaged)[0, :, :, 1], [[2.5, 4.5], [10.5, 12.5]]
    )
    for maps in (kept, averaged):
        assert not convert_to_numpy(maps)[0, :, :, ::2].any()


def test_a_released_wide_resnet_draws_its_dense_layer_uniformly() -> None:
    model = zoo.build("wrn10-1-released", 4, (8, 8, 3))
    values = zoo.initial_values(model, 0)
    (kernel,) = (
        value
        for variable, value in zip(model.variables, values, strict=True)
        if variable.path == "logits/kernel"
    )
    assert 0.45 < np.abs(kernel).max() <= 0.5  # 1/√4
    assert abs(kernel.std() - 0.5 / np.sqrt(3)) < 0.03


def test_a_released_resnet_for_cifar_draws_as_glorot_did() -> None:
    for name, fans in (("resnet29", "in"), ("resnet29-released", "both"), ("resnet32", "in"),
                       ("resnet32-released", "both")):  # fmt: skip
        model = zoo.build(name, 10, (32, 32, 3))
        for variable, value in zip(model.variables, zoo.initial_values(model, 0), strict=True):
            if variable.name == "kernel" and value.ndim == 4 and value.size > 9000:
                *area, inputs, outputs = value.shape
                fan = np.prod(area) * (inputs if fans == "in" else inputs + outputs)
                assert value.std() == pytest.approx(np.sqrt(2 / fan), rel=0.03)


def test_the_released_resnet50_is_preactivated() -> None:
    model = zoo.build("resnet50-released", 10, (32, 32, 3))
    stages = ((64, 64, 3), (256, 128, 4), (512, 256, 6), (1024, 512, 3))
    convolutions, scales = 49 * 3 * 64, 2048
    for inputs, filters, blocks in stages:
        outputs = 4 * filters
        convolutions += inputs * outputs + (inputs + outputs * (blocks - 1)) * filters
        convolutions += blocks * (9 * filters * filters + filters * outputs)
        scales += inputs + outputs * (blocks - 1) + 2 * filters * blocks
    counted = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    assert counted == convolutions + 2 * scales + 2048 * 10 + 10
    projection = model.get_layer("stage2_block1_projection")
    assert projection.input is model.get_layer("stage2_block1_0_relu").output
    before, after = (model.get_layer(f"stage2_block{block}_add") for block in (1, 2))
    assert after.input[0] is before.output
    # 3x3 convolution 64 -> 64: variance 1/(9·64) by fan-in. The first block is enough.
    end = model.get_layer("stage1_block1_add").output
    block = keras.Model(model.input, end, name=model.name)
    values = dict(zip((v.path for v in block.variables), zoo.initial_values(block, 0), strict=True))
    variance = values["stage1_block1_conv1/kernel"].var()
    assert variance == pytest.approx(1 / (9 * 64), rel=0.03)


def test_the_released_resnet_centers_its_strided_convolutions() -> None:
    for name, padding in (("resnet8-released", "valid"), ("resnet8", "same")):
        model = zoo.build(name, 10, (32, 32, 3))
        strided = [model.get_layer(f"stage{stage}_block1_conv1") for stage in (1, 2, 3)]
        assert [layer.padding for layer in strided] == ["same", padding, padding]
        assert [layer.output.shape[1] for layer in strided] == [32, 16, 8]


def test_a_centered_convolution_pads_all_sides_alike() -> None:
    layers = zoo.Layers("float32", "float32", zoo.BatchNormalization)
    images = keras.Input((4, 4, 1))
    model = keras.Model(images, layers.centered_convolution(images, 1, 3, 2, "conv"))
    model.set_weights([np.ones((3, 3, 1, 1), np.float32)])
    sums = convert_to_numpy(model(np.ones((1, 4, 4, 1), np.float32)))[0, :, :, 0]
    np.testing.assert_array_equal(sums, [[4, 6], [6, 9]])


@pytest.mark.parametrize("name", ["resnet34-released", "preact8-released", "resnet29-relaesed"])
def test_not_every_family_has_a_released_form(name: str) -> None:
    with pytest.raises(UserError, match="unknown network"):
        zoo.build(name, 10, CIFAR)
