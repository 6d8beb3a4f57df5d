# SPDX-License-Identifier: Apache-2.0
import keras
import numpy as np
import pytest
from keras.ops import convert_to_numpy

from ieg_core.errors import UserError
from ieg_core.experiment.dataset_spec import parse
from ieg_core.methods import registry
from ieg_core.models import user_network, zoo
from ieg_core.recipes import build
from ieg_core.training.step import build_network, initial_state
from tests.ieg_core.models import nets_of_mine

# TensorFlow's variables know nothing of NumPy 2's copy keyword.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SHAPE = (8, 8, 1)
IMAGES = np.random.default_rng(0).uniform(-1, 1, (6, *SHAPE)).astype(np.float32)


def name_of(function: str) -> str:
    return f"tests.ieg_core.models.nets_of_mine:{function}"


def built(function: str, **settings) -> keras.Model:
    return zoo.build(name_of(function), 4, SHAPE, **settings)


@pytest.mark.parametrize(
    ("function", "num_features"),
    [
        ("small", 8),
        ("sequential", 16),
        ("with_features", 5),
        ("other_features", 5),
        ("named_output", 64),
        ("last_layer_twice", 4),
        ("no_dropout", 64),
        ("recurrent", 4),
    ],
)
def test_logits_and_the_features_that_they_come_from(function, num_features):
    model = built(function)
    (logits, features), _ = model.stateless_call(
        model.trainable_variables, model.non_trainable_variables, IMAGES, training=True
    )
    assert logits.shape == (6, 4)
    assert features.shape == (6, num_features)
    kernel, bias = build_network(model, 0.0).head
    kernel, bias = (convert_to_numpy(model.trainable_variables[i]) for i in (kernel, bias))
    np.testing.assert_allclose(convert_to_numpy(features) @ kernel + bias, logits, atol=1e-5)


@pytest.mark.parametrize("function", ["subclassed", "no_dense_end", "no_bias", "tanh_end"])
def test_without_a_last_dense_layer_only_methods_that_look_into_it_are_refused(function):
    model = built(function)
    assert tuple(model(IMAGES)[0].shape) == (6, 4)
    network = build_network(model, 0.0)
    with pytest.raises(
        UserError, match=r"is not dense: .*a bias on features .*; end the network in one"
    ):
        _ = network.head


def test_kernels_decay_and_nothing_else():
    model = built("small")
    names = [variable.name for variable in model.trainable_variables]
    assert names == ["kernel", "gamma", "beta", "kernel", "bias", "kernel", "bias"]
    assert build_network(model, 0.0).decayed == [name == "kernel" for name in names]


def test_the_seed_decides_the_values_and_the_checks_leave_them_alone():
    first, again, other = (zoo.initial_values(built("small", seed=seed), 99) for seed in (3, 3, 4))
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    assert (first[0] != other[0]).any()
    # Two passes in training mode would have moved the statistics.
    stats = [value for value in first if value.shape == (8,)]
    assert {float(value.ravel()[0]) for value in stats} == {0.0, 1.0}


def test_layers_of_equal_names_have_their_own_values():
    model = built("twins")
    paths = [variable.path for variable in model.trainable_variables]
    assert len(set(paths)) < len(paths)
    config = build.build_config(parse("digits"), "supervised")
    state = initial_state(model, registry.find("supervised"), config, None)
    for key, variables in (
        ("params", model.trainable_variables),
        ("stats", model.non_trainable_variables),
    ):
        for value, variable in zip(state[key], variables, strict=True):
            np.testing.assert_array_equal(value, convert_to_numpy(variable))


def test_bfloat16_computes_in_bfloat16_and_answers_in_float32():
    model = built("small", dtype="mixed_bfloat16")
    assert {variable.dtype for variable in model.variables} == {"float32"}
    assert model.layers[1].compute_dtype == "bfloat16"
    assert [output.dtype for output in model.outputs] == ["float32", "float32"]
    assert keras.config.dtype_policy().name == "float32"
    assert build_network(model, 0.0).head == (5, 6)


def test_a_file_brings_its_values(tmp_path):
    saved = nets_of_mine.small(4, SHAPE)
    saved.layers[-1].bias.assign([1.0, 2.0, 3.0, 4.0])
    path = tmp_path / "mine.keras"
    saved.save(path)
    for seed in (0, 1):
        model = zoo.build(str(path), 4, SHAPE, seed=seed)
        np.testing.assert_allclose(model(IMAGES)[0], saved(IMAGES), atol=1e-6)
    exported = zoo.stock_model(str(path), 4, SHAPE)
    np.testing.assert_allclose(exported(IMAGES), saved(IMAGES), atol=1e-6)
    with pytest.raises(UserError, match=r"takes \(None, 8, 8, 1\): expected one input of images"):
        zoo.build(str(path), 4, (9, 8, 1))
    path.write_bytes(b"not a model")
    with pytest.raises(
        UserError, match=r"mine.keras' cannot be loaded \(ValueError: .*built-in Keras"
    ):
        zoo.build(str(path), 4, SHAPE)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            "dropout",
            r"the layer 'forget' \(Dropout\) that draws random numbers: expected .*rate to",
        ),
        ("hidden_noise", "returns a different result in every call in training mode"),
        ("softmax", "ends in a softmax: expected logits"),
        ("softmax_layer", "ends in a softmax: expected logits"),
        ("nested_softmax", "ends in a softmax: expected logits"),
        ("hidden_softmax", "returns probabilities .*: expected logits"),
        ("whole_numbers", "takes uint8, to which .*: expected a floating-point input"),
        ("not_finite", "returns values that are not finite"),
        ("spectral", "the layer 'bounded' .* that assigns trainable variables"),
        ("too_few", r"returns \(None, 3\): expected logits \[B, 4\]"),
        ("other_input", r"takes \(None, 64, 64, 3\): expected .*\(None, 8, 8, 1\)"),
        ("nothing_to_train", "has no trainable variables"),
        ("fails", "could not be built .KeyError: .*not found"),
        ("no_model", r"returned list: expected a keras.Model"),
        ("one_argument", "could not be built .TypeError: .*takes 1 positional argument"),
        ("tiny", r"is not in the module .*, which has .*small"),
    ],
)
def test_a_network_that_cannot_be_trained_is_refused_in_one_line(function, message):
    with pytest.raises(UserError, match=message) as caught:
        built(function)
    assert "\n" not in str(caught.value)


def test_on_several_replicas_batch_norm_must_see_them_all():
    user_network.require_synchronized(built("no_dense_end"))
    with pytest.raises(UserError, match="expected synchronized=True on several GPUs"):
        user_network.require_synchronized(built("small"))


@pytest.mark.parametrize(
    ("module", "code", "message"),
    [
        ("broken_net", "import nothing_of_that_name", "ModuleNotFoundError: No module named 'no"),
        ("misspelled_net", "import keras\nkeras.layers.Conv3", "AttributeError: .*Conv3"),
        ("leaving_net", "import sys\nsys.exit('usage')", "SystemExit: usage"),
    ],
)
def test_a_module_that_does_not_import_is_told(tmp_path, monkeypatch, module, code, message):
    (tmp_path / f"{module}.py").write_text(f"{code}\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        zoo.build(f"{module}:small", 4, SHAPE)
