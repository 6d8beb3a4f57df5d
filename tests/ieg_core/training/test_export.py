# SPDX-License-Identifier: Apache-2.0
"""What an exported model says of files is what its evaluation said of the same images."""

import keras
import numpy as np
import pytest
from PIL import Image

from ieg_core.cli.predict import predict_files
from ieg_core.data.image_folder.arrays import write_arrays
from ieg_core.data.label_set import prepare_label_set
from ieg_core.data.open import open_source
from ieg_core.errors import UserError
from ieg_core.experiment.dataset_spec import parse
from ieg_core.experiment.overrides import override
from ieg_core.methods import registry
from ieg_core.models import zoo
from ieg_core.recipes import build
from ieg_core.training.evaluation import build_predictor
from ieg_core.training.export import export_model, require_exportable
from ieg_core.training.step import initial_state

# Keras hands TensorFlow's tensors to NumPy in a way that NumPy is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

NETS = "tests.ieg_core.models.nets_of_mine"
NETWORK = f"{NETS}:sequential"


def exported(folder, data_dir, size, channels):
    """Exports an untrained network; returns the file and what evaluation says of test images."""
    spec = parse("folder")
    config = override(
        build.build_config(spec, "supervised", network=NETWORK, image_size=size),
        [f"images.size={size}", f"images.channels={channels}"],
    )
    source = open_source("folder", data_dir, config.images)
    label_set = prepare_label_set(
        spec, seed=0, probe_per_class=0, source=source, label_sets_dir=folder / "label_sets"
    )
    model = zoo.build(NETWORK, label_set.num_classes, label_set.image_shape)
    state = initial_state(model, registry.find("supervised"), config, label_set)
    path = folder / "model.keras"
    export_model(path, config, label_set, source, state)
    images = source.test_images(np.arange(len(source.test_labels)))
    return path, images, build_predictor(model)(state["ema"], state["stats"], images)


def shares(logits):
    raised = np.exp(logits - logits.max(1, keepdims=True))
    return raised / raised.sum(1, keepdims=True)


def told(model, files):
    return [
        [dict(each.classes)[name] for name in "ab"] for each in predict_files(model, files, top=2)
    ]


@pytest.mark.parametrize(
    ("size", "channels"),
    [(28, 1), (32, 3), (96, 3), (97, 1), (97, 3), (128, 1)],
)
def test_of_arrays_of_any_size(tmp_path, size, channels):
    rng = np.random.default_rng(size + channels)
    images = rng.integers(0, 256, (4, size, size, channels), np.uint8)
    part = (images, np.array([0, 1, 0, 1], np.int32))
    data_dir = write_arrays(tmp_path, {"train": part, "test": part}, ("a", "b"))
    model, _, logits = exported(tmp_path, data_dir, size, channels)
    files = [tmp_path / f"{number}.png" for number in range(len(images))]
    for file, image in zip(files, images, strict=True):
        Image.fromarray(image.squeeze()).save(file)
    np.testing.assert_allclose(told(model, files), shares(logits), atol=1e-5)
    alone = keras.saving.load_model(model)(images.astype(np.float32), training=False)
    np.testing.assert_allclose(alone, logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [96, 97])
def test_of_files_that_are_cut_and_brought_to_size(tmp_path, size):
    rng = np.random.default_rng(size)
    files = []
    for name in ("train/a/0", "train/b/0", "test/a/0", "test/b/0"):
        files.append(tmp_path / f"{name}.png")
        files[-1].parent.mkdir(parents=True)
        Image.fromarray(rng.integers(0, 256, (150, 200, 3), np.uint8)).save(files[-1])
    model, _, logits = exported(tmp_path, tmp_path, size, 3)
    np.testing.assert_allclose(told(model, files[2:]), shares(logits), atol=1e-5)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    spec = parse("digits")
    source = open_source("digits", folder)
    return prepare_label_set(spec, seed=0, probe_per_class=0, source=source, label_sets_dir=folder)


@pytest.mark.parametrize("function", ["small", "registered", "twins"])
def test_what_keras_can_write_may_be_trained(digits, function):
    config = build.build_config(parse("digits"), "supervised", network=f"{NETS}:{function}")
    require_exportable(config, digits)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("no_config", r"cannot be exported .NotImplementedError: .*implement `get_config"),
        ("unregistered", r"cannot be exported .TypeError: Could not locate class 'Unregis"),
        ("with_lambda", r"cannot be exported .ValueError: .*`Lambda` layer"),
        ("forgetful", r"gives different logits after saving and loading \(by up to"),
    ],
)
def test_what_keras_cannot_write_and_read_is_told_before_training(digits, function, message):
    config = build.build_config(parse("digits"), "supervised", network=f"{NETS}:{function}")
    with pytest.raises(UserError, match=message) as caught:
        require_exportable(config, digits)
    assert "register_keras_serializable(), return every argument" in str(caught.value)
    assert "\n" not in str(caught.value)
