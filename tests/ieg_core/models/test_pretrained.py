# SPDX-License-Identifier: Apache-2.0
import hashlib

import keras
import numpy as np
import pytest
import safetensors.numpy

from ieg_core.errors import UserError
from ieg_core.experiment.dataset_spec import parse
from ieg_core.experiment.networks import source_digest
from ieg_core.experiment.overrides import override
from ieg_core.methods import registry
from ieg_core.models import pretrained, zoo
from ieg_core.recipes import build
from ieg_core.training.step import initial_state

# TensorFlow's variables know nothing of NumPy 2's copy keyword.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SHAPE = (8, 8, 1)


@pytest.fixture(scope="module")
def model():
    return zoo.build("preact8", 4, SHAPE)


@pytest.fixture(scope="module")
def drawn(model):
    return zoo.initial_values(model, 0)


def without_head(model, values):
    return {
        variable.path: value
        for variable, value in zip(model.variables, values, strict=True)
        if not variable.path.startswith("logits/")
    }


def test_an_exported_model_is_a_start_but_for_its_dense_layer(model, drawn, tmp_path):
    core = zoo.stock_model("preact8", 10, SHAPE)
    rng = np.random.default_rng(0)
    core.set_weights([rng.uniform(0.5, 1.5, each.shape) for each in core.get_weights()])
    pixels = keras.Input(SHAPE)
    exported = keras.Model(pixels, core(keras.layers.Rescaling(1 / 127.5, -1.0)(pixels)))
    exported.save(tmp_path / "model.keras")
    values = pretrained.initial_values(model, drawn, str(tmp_path / "model.keras"))
    expected = without_head(core, core.get_weights())
    assert expected.keys() == without_head(model, values).keys()
    for path, value in without_head(model, values).items():
        np.testing.assert_array_equal(value, expected[path], path)
    head = [variable.path for variable in model.variables].index("logits/kernel")
    np.testing.assert_array_equal(values[head], drawn[head])


def test_tensors_are_named_by_the_variables_paths(model, drawn, tmp_path):
    file = str(tmp_path / "start.safetensors")
    tensors = {path: value + 1 for path, value in without_head(model, drawn).items()}
    safetensors.numpy.save_file(tensors | {"other/kernel": np.ones(3)}, file)
    values = without_head(model, pretrained.initial_values(model, drawn, file))
    assert values.keys() == tensors.keys()
    for path, value in values.items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, tensors[path], path)
    safetensors.numpy.save_file(tensors | {"stem/kernel": np.ones((3, 3, 1, 8))}, file)
    with pytest.raises(UserError, match=r"'stem/kernel' \(3, 3, 1, 32\), received \(3, 3, 1, 8\)"):
        pretrained.initial_values(model, drawn, file)
    del tensors["stem/kernel"]
    safetensors.numpy.save_file(tensors, file)
    with pytest.raises(UserError, match=r"'stem/kernel' .* received no such value"):
        pretrained.initial_values(model, drawn, file)


def test_a_training_starts_from_the_file(model, drawn, tmp_path):
    file = str(tmp_path / "start.safetensors")
    tensors = {path: value + 1 for path, value in without_head(model, drawn).items()}
    safetensors.numpy.save_file(tensors, file)
    config = build.build_config(parse("digits"), "supervised", seed=0)
    config = override(config, [f"pretrained={file}"])
    state = initial_state(model, registry.find("supervised"), config, None)
    starts = [variable.path for variable in model.trainable_variables].index("stem/kernel")
    np.testing.assert_array_equal(state["params"][starts], tensors["stem/kernel"])
    np.testing.assert_array_equal(state["ema"][starts], tensors["stem/kernel"])
    assert build.changed_settings(config, 1000) == ["pretrained"]


@pytest.mark.parametrize("name", ["damaged.safetensors", "damaged.keras"])
def test_a_damaged_file_is_refused_in_one_line(name, model, drawn, tmp_path):
    (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(UserError, match=f"initial values from .*{name} .*: expected") as caught:
        pretrained.initial_values(model, drawn, str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_the_file_is_part_of_what_a_trial_is(tmp_path):
    file = tmp_path / "start.keras"
    file.write_bytes(b"abc")
    assert source_digest("resnet29", str(file)) == hashlib.sha256(b"abc").hexdigest()
    with pytest.raises(UserError, match="expected initial values"):
        source_digest("resnet29", str(tmp_path / "none.keras"))


@pytest.mark.parametrize(
    ("network", "file", "message"),
    [
        ("preact8", "start.ckpt", "pretrained must be a file ending in .keras or .safetensors"),
        ("mine.keras", "start.keras", "the network 'mine.keras' has its own values"),
    ],
)
def test_a_start_that_no_network_takes_is_refused(network, file, message):
    config = build.build_config(parse("digits"), "supervised", network=network)
    with pytest.raises(UserError, match=message):
        override(config, [f"pretrained={file}"])
